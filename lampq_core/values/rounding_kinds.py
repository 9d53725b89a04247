"""How a weight becomes a code: names that plans and profiles carry, those of other forms among them."""

from __future__ import annotations

from lampq.core.values.errors import RecordError
from lampq.core.values.weight_form import WEIGHT_FORMS, WeightForm

NEAREST, INPUTS, CORRECTED = "nearest", "inputs", "corrected"
MEASURED = (NEAREST, INPUTS)
"""To the nearest level, or for the least error of the layer's output on the calibration inputs."""
ROUNDINGS = (*MEASURED, CORRECTED)
"""Plans may ask for codes that make up, layer after layer, for the layers before (`core.measuring.correction`)."""


def profiled(rounding: str) -> str:
    """The rounding that a profile for plans of another has: corrections are of whole plans."""
    return INPUTS if rounding == CORRECTED else rounding


def form_of(rounding: str) -> WeightForm | None:
    """The form that weights have, where it is none of `ROUNDINGS`.

    Raises:
        RecordError: There is no such rounding and no such form.
    """
    if rounding in ROUNDINGS:
        return None
    if rounding not in WEIGHT_FORMS:
        raise RecordError(
            f"rounding {rounding!r} is none of {', '.join((*ROUNDINGS, *WEIGHT_FORMS.names()))}; "
            f"or install the package that announces it (entry points {WEIGHT_FORMS.group})"
        )
    return WEIGHT_FORMS.get(rounding)
