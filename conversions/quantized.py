"""A quantized model as the plan that it was written by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lampq.conversions.entry import AnyLayer
from lampq.conversions.imports import MODE, given_plan
from lampq.conversions.target import Target
from lampq.core.errors import PlanError
from lampq.core.fingerprint import Fingerprint
from lampq.core.plan import Plan, PlanLayer
from lampq.core.stored import StoredWeight

# Rounding moves a sum by chance; this many standard deviations still pass.
_SIGMAS = 6.0
# The widest grid in use spans about eight standard deviations of the weights.
_SPAN = 8.0
_SHOWN = 4


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
            PlanLayer(
                name=weight.layer.name,
                kind=weight.layer.kind,
                fingerprint=weight.layer.fingerprint,
                shape=weight.layer.shape,
                size=weight.layer.size,
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


def identified_plan(stored: Sequence[StoredWeight], target: Target, *, label: str) -> Plan:
    """The plan of a quantized file, for the float model it was made from.

    A weight is found by its name and size; where names differ, by its place among the weights of its size, if both
    files have as many. Either way its values must be those of the float weight up to rounding.

    Args:
        stored: The file's quantized weights.
        target: The float model, or a profile or plan of it.
        label: What to call the file.

    Raises:
        PlanError: Nothing is quantized, or a weight is none of the target's.
    """
    _require(stored, label)
    homes = _homes(stored, target.layers, label, target.label)
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
    return bool(
        abs(rounded.total - origin.total) <= chance + 1e-6 * origin.absolute
        and abs(rounded.square - origin.square)
        <= 3 * error * origin.square + chance * np.sqrt(origin.square / origin.count)
        and abs(rounded.absolute - origin.absolute) <= 3 * np.sqrt(error) * origin.absolute
    )


def _homes(
    stored: Sequence[StoredWeight], layers: Sequence[AnyLayer], label: str, target: str
) -> list[AnyLayer]:
    named = {layer.name: layer for layer in layers}
    found: dict[int, AnyLayer] = {}
    for index, weight in enumerate(stored):
        layer = named.get(weight.layer.name)
        if layer is not None and layer.size == weight.layer.size:
            found[index] = layer
    taken = {layer.name for layer in found.values()}
    free: dict[int, list[AnyLayer]] = {}
    for layer in layers:
        if layer.name not in taken:
            free.setdefault(layer.size, []).append(layer)
    nameless: dict[int, list[int]] = {}
    for index, weight in enumerate(stored):
        if index not in found:
            nameless.setdefault(weight.layer.size, []).append(index)
    for size, indices in nameless.items():
        found |= _in_order(indices, free.get(size, []), stored)
    lost = [weight.layer.name for index, weight in enumerate(stored) if index not in found]
    wrong = [
        weight.layer.name
        for index, weight in enumerate(stored)
        if index in found
        and not is_rounded(weight.layer.fingerprint, found[index].fingerprint, weight.weight_bits)
    ]
    if lost or wrong:
        names = [*lost, *wrong]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise PlanError(
            f"{label} was not made from {target}: {len(names)} of its {len(stored)} quantized weights are none of "
            f"that, rounded ({', '.join(names[:_SHOWN])}{more})"
        )
    return [found[index] for index in range(len(stored))]


def _in_order(
    indices: Sequence[int], layers: Sequence[AnyLayer], stored: Sequence[StoredWeight]
) -> Mapping[int, AnyLayer]:
    """Weights of one size with the layers they can be, in order: each the first that fits after the one before."""
    found: dict[int, AnyLayer] = {}
    start = 0
    for index in indices:
        weight = stored[index]
        for place in range(start, len(layers)):
            if is_rounded(weight.layer.fingerprint, layers[place].fingerprint, weight.weight_bits):
                found[index] = layers[place]
                start = place + 1
                break
    return found


def _require(stored: Sequence[StoredWeight], label: str) -> None:
    if not stored:
        raise PlanError(f"{label} holds no quantized weights; `lampq inspect` shows what it holds")
