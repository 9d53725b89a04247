"""A quantized model as the plan that it was written by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lampq.conversions.entry import AnyLayer
from lampq.conversions.imports import MODE, given_plan
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.layer import Layer
from lampq.core.values.match import match
from lampq.core.values.messages import listed
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.stored import StoredWeight

# Rounding moves a sum by chance; this many standard deviations still pass.
_SIGMAS = 6.0
# The widest grid in use spans about eight standard deviations of the weights.
_SPAN = 8.0
# Of the rounding error, the part that all weights may share; of few codes, one more on one side weighs more.
_BIAS, _BIAS_OF_CODES = 0.1, 2.0


def stored_plan(stored: Sequence[StoredWeight], *, label: str, file_bytes: int) -> Plan:
    """The plan of a quantized file on its own.

    Names are the file's. Fingerprints are of rounded weights, so such a plan meets a float model by name alone.

    Args:
        stored: The file's quantized weights.
        label: What to call the file.
        file_bytes: Its size.

    Raises:
        PlanError: Nothing in it is quantized.
    """
    _require(stored, label)
    payload = sum(weight.payload_bytes for weight in stored)
    return Plan(
        layers=tuple(
            PlanLayer.of(
                weight.layer,
                weight_bits=weight.weight_bits,
                activation_bits=weight.activation_bits,
                payload_bytes=weight.payload_bytes,
            )
            for weight in stored
        ),
        mode=MODE,
        budget={},
        container="int8" if all(weight.container == "int8" for weight in stored) else "bitplane",
        rest_bytes=max(file_bytes - payload, 0),
        notes=(f"read from {label}: fingerprints are of rounded weights, use --by-name",),
        provenance={"model": label},
    )


def identified_plan(
    stored: Sequence[StoredWeight], target: Target, *, label: str, floats: Callable[[], Sequence[Layer]]
) -> Plan:
    """The plan of a quantized file, for the float model it was made from.

    A weight is found by its name and size; where names differ, by its place among the weights of its size. For that
    the file must hold as many as the target, counting those it still holds as floats, which are found by fingerprint.
    Either way its values must be those of the float weight up to rounding.

    Args:
        stored: The file's quantized weights.
        target: The float model, or a profile or plan of it.
        label: What to call the file.
        floats: Gives the layers that the file still holds as floats; asked only where names differ.

    Raises:
        PlanError: Nothing is quantized, a weight is none of the target's, or nothing tells which it is.
    """
    _require(stored, label)
    homes = _homes(stored, target, label, floats)
    widths = {
        layer.name: (weight.weight_bits, weight.activation_bits)
        for weight, layer in zip(stored, homes, strict=True)
    }
    return given_plan(widths, target, notes=[f"read from {label}"])


def is_rounded(rounded: Fingerprint, origin: Fingerprint, bits: int) -> bool:
    """Whether a weight may be another one rounded to a grid of `bits` bits."""
    if rounded.count != origin.count:
        return False
    # The error of a grid over the whole span, as a fraction of the mean square.
    error = (_SPAN / (2**bits - 1)) ** 2 / 12
    chance = _SIGMAS * np.sqrt(error * origin.square)
    # Grids with one code more below zero than above clip what is largest.
    bias = max(_BIAS, _BIAS_OF_CODES / 2**bits) * np.sqrt(error * origin.square * origin.count)
    return bool(
        abs(rounded.total - origin.total) <= chance + bias
        and abs(rounded.square - origin.square)
        <= 3 * error * origin.square + chance * np.sqrt(origin.square / origin.count)
        and abs(rounded.absolute - origin.absolute) <= 3 * np.sqrt(error) * origin.absolute
    )


def _homes(
    stored: Sequence[StoredWeight], target: Target, label: str, floats: Callable[[], Sequence[Layer]]
) -> list[AnyLayer]:
    """The target's layer of each weight."""
    named = {layer.name: layer for layer in target.layers}
    homes: dict[int, AnyLayer] = {}
    for index, weight in enumerate(stored):
        layer = named.get(weight.layer.name)
        if layer is not None and layer.size == weight.layer.size:
            homes[index] = layer
    if len(homes) < len(stored):
        occupied = {layer.name for layer in homes.values()}
        free = [layer for layer in target.layers if layer.name not in occupied]
        float_already = match(floats(), free)
        free = [free[j] for j in float_already.only_right]
        homes |= _in_order({i: w for i, w in enumerate(stored) if i not in homes}, free, label, target.label)
    wrong = [
        weight.layer.name
        for index, weight in enumerate(stored)
        if not is_rounded(weight.layer.fingerprint, homes[index].fingerprint, weight.weight_bits)
    ]
    if wrong:
        raise PlanError(
            f"{label} was not made from {target.label}: {len(wrong)} of its {len(stored)} quantized weights are "
            f"none of that, rounded ({listed(wrong)})"
        )
    return [homes[index] for index in range(len(stored))]


def _in_order(
    nameless: Mapping[int, StoredWeight], free: Sequence[AnyLayer], label: str, target: str
) -> dict[int, AnyLayer]:
    """Weights with the layers of their size, in order.

    Raises:
        PlanError: There are not as many of a size.
    """
    homes: dict[int, AnyLayer] = {}
    for size in dict.fromkeys(weight.layer.size for weight in nameless.values()):
        indices = [index for index, weight in nameless.items() if weight.layer.size == size]
        layers = [layer for layer in free if layer.size == size]
        if len(layers) != len(indices):
            raise PlanError(
                f"{label} was not made from {target}, or holds it in other parts: {len(indices)} quantized weights of "
                f"{size:,} values have names of their own ({nameless[indices[0]].layer.name}), where {target} has "
                f"{len(layers)} left"
            )
        homes.update(zip(indices, layers, strict=True))
    return homes


def _require(stored: Sequence[StoredWeight], label: str) -> None:
    if not stored:
        raise PlanError(f"{label} holds no quantized weights; `lampq inspect` shows what it holds")
