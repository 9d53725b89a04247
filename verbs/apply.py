"""Model and plan in, quantized model out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lampq.core.errors import PlanError
from lampq.core.files import refuse_existing
from lampq.core.match import match
from lampq.core.model import Model
from lampq.core.plan import Plan

_SHOWN = 4


def apply(model: Model, plan: Plan, out: str | Path, *, partial: bool = False, force: bool = False) -> Path:
    """Write `model` quantized by `plan`, in the model's own format, and verify the file by running it.

    Args:
        model: The float model; it may be another file or format of the model that the plan was made from.
        plan: Widths.
        out: File to write.
        partial: Accept layers without a partner on either side; those of the model stay float.
        force: Overwrite `out`.

    Raises:
        PlanError: The plan is for another model; lists what does not match.
        AdapterError: The file cannot be written, or does not compute what it should; nothing is left behind.
    """
    out = Path(out)
    refuse_existing(out, force=force)
    model.write(fit_to(model, plan, partial=partial), out)
    return out


def fit_to(model: Model, plan: Plan, *, partial: bool = False) -> Plan:
    """The plan with the names and shapes that its layers have in `model`, matched by fingerprint, then by name.

    Raises:
        PlanError: Layers are left over on either side and `partial` is false, or nothing matches at all.
    """
    layers = model.layers()
    found = match(plan.layers, layers)
    if not found.pairs:
        raise PlanError(
            f"the plan was made for another model: none of its {len(plan.layers)} layers is in {model.path.name}"
        )
    if not found.complete and not partial:
        raise PlanError(
            f"the plan does not fit {model.path.name}: "
            f"{_listed([plan.layers[i].name for i in found.only_left], 'of the plan')}"
            f"{'; ' if found.only_left and found.only_right else ''}"
            f"{_listed([layers[j].name for j in found.only_right], 'of the model')}; "
            f"pass --partial to apply the rest"
        )
    fitted = []
    for left, right in found.pairs:
        decision, layer = plan.layers[left], layers[right]
        fitted.append(dataclasses.replace(decision, name=layer.name, kind=layer.kind, shape=layer.shape))
    return dataclasses.replace(plan, layers=tuple(fitted))


def _listed(names: list[str], side: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} layers {side} have no match ({', '.join(names[:_SHOWN])}{more})"
