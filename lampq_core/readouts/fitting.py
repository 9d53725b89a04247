"""From heads and the float model's outputs to roles: what a head may be, what it moves in, what is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lampq.core.readouts.classes import Classes
from lampq.core.readouts.direction import Direction, unit
from lampq.core.readouts.parts import mask_of, output_of
from lampq.core.readouts.probabilities import Probabilities
from lampq.core.readouts.role import Role
from lampq.core.readouts.rows import to_rows
from lampq.core.readouts.values import Values, channel_spread
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES, DIRECTION, PROBABILITIES, ROLE_KINDS, VALUES, Head

Parts = Sequence[tuple[np.ndarray, "np.ndarray | None"]]
"""The output of each group of samples, and its mask."""


def fit_role(head: Head, reference: Batch) -> Role | str:
    """The role of a head, fitted to the float outputs.

    Args:
        head: A judged head.
        reference: Float outputs, with the mask that the head names.

    Returns:
        The role; or why the head cannot be judged on these samples, a phrase.

    Raises:
        RecordError: The head cannot have that role, or its mask does not fit.
    """
    for group in reference.groups:
        _refuse_misfit(head, output_of(group, head))
    parts = [(output_of(group, head), mask_of(group, head)) for group in reference.groups]
    samples = np.concatenate([unusable(head, array) for array, _ in parts])
    if samples.any():
        return f"NaN or infinite in the float model (first for sample {int(samples.argmax())})"
    fit: Callable[[Head, Parts], Role | str] = ROLE_KINDS.get(head.role).fit or _FITTERS[head.role]
    return fit(head, parts)


def unusable(head: Head, array: np.ndarray) -> np.ndarray:
    """Samples with values that no damage can be taken of, bool, shape (S,).

    A class of probability zero (-inf) is none as long as another is possible, and a sure answer (-inf or inf) is none.
    """
    if np.isfinite(array).all():
        return np.zeros(len(array), dtype=bool)
    bad = np.isnan(array)
    if head.role == CLASSES:
        bad |= np.isposinf(array) | np.isneginf(array).all(axis=head.axis, keepdims=True)
    elif head.role != PROBABILITIES:
        bad |= np.isinf(array)
    return bad.reshape(len(array), -1).any(axis=1)


def infinite_note(head: Head, reference: Batch) -> str:
    """What the infinite values of a head's float outputs mean for its damage, a sentence; empty without any."""
    arrays = [output_of(group, head) for group in reference.groups]
    infinite = sum(int(np.isinf(array).sum()) for array in arrays)
    if not infinite:
        return ""
    return (
        f"{infinite:,} of {sum(array.size for array in arrays):,} values of output {head.name} are infinite in the "
        f"float model, answers that are sure: its damage comes from the others, unless a plan moves these"
    )


def _fit_values(head: Head, parts: Parts) -> Role | str:
    spread = channel_spread([(to_rows(array, head.axis), mask) for array, mask in parts])
    return _CONSTANT if spread is None else Values(axis=head.axis, spread=spread)


def _fit_direction(head: Head, parts: Parts) -> Role | str:
    spread = channel_spread([(unit(array, head.axis), mask) for array, mask in parts])
    return _CONSTANT if spread is None else Direction(axis=head.axis, spread=spread)


_CONSTANT = "constant over all samples"
_FITTERS: Mapping[str, Callable[[Head, Parts], Role | str]] = {
    CLASSES: lambda head, parts: Classes(axis=head.axis),
    PROBABILITIES: lambda head, parts: Probabilities(axis=head.axis),
    VALUES: _fit_values,
    DIRECTION: _fit_direction,
}


def _refuse_misfit(head: Head, array: np.ndarray) -> None:
    where = f"output {head.name} of shape {array.shape}"
    if not np.issubdtype(array.dtype, np.floating):
        raise RecordError(f"{where} holds {array.dtype}; only floating point can be judged")
    if array.size == 0:
        raise RecordError(f"{where} holds nothing to judge; make it `ignore`")
    axes = max(array.ndim, 2)
    if not -axes < head.axis < axes or head.axis == 0:
        raise RecordError(f"{where} has no axis {head.axis} for its {head.role}")
    if head.role == CLASSES and to_rows(array, head.axis).shape[-1] < 2:
        raise RecordError(
            f"{where} has one entry on axis {head.axis}: no classes; one logit is `probabilities`"
        )
