"""From heads and the float model's outputs to roles: what a head may be, what it moves in, what is left out."""

from __future__ import annotations

import numpy as np

from lampq.core.readouts.classes import Classes
from lampq.core.readouts.direction import Direction, unit
from lampq.core.readouts.probabilities import Probabilities
from lampq.core.readouts.role import Role
from lampq.core.readouts.rows import position_weights, to_rows
from lampq.core.readouts.values import Values, channel_spread
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES, DIRECTION, PROBABILITIES, Head

Part = tuple[np.ndarray, "np.ndarray | None"]
"""An output of a group of samples and its mask."""


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
    parts = [(group[head.name], group.get(head.mask or "")) for group in reference.groups]
    for array, mask in parts:
        _refuse_misfit(head, array, mask)
    samples = np.concatenate([unusable(head, array) for array, _ in parts])
    if samples.any():
        return f"NaN or infinite in the float model (first for sample {int(samples.argmax())})"
    if head.role == CLASSES:
        return Classes(axis=head.axis)
    if head.role == PROBABILITIES:
        return Probabilities(axis=head.axis)
    return _fit_numbers(head, parts)


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


def _fit_numbers(head: Head, parts: list[Part]) -> Role | str:
    rows = unit if head.role == DIRECTION else to_rows
    spread = channel_spread([(rows(array, head.axis), mask) for array, mask in parts])
    if spread is None:
        return "constant over all samples"
    return (Direction if head.role == DIRECTION else Values)(axis=head.axis, spread=spread)


def _refuse_misfit(head: Head, array: np.ndarray, mask: np.ndarray | None) -> None:
    where = f"output {head.name} of shape {array.shape}"
    if array.ndim and not np.issubdtype(array.dtype, np.floating):
        raise RecordError(f"{where} holds {array.dtype}; only floating point can be judged")
    if array.size == 0:
        raise RecordError(f"{where} holds nothing to judge; make it `ignore`")
    axes = max(array.ndim, 2)
    if not -axes < head.axis < axes or head.axis == 0:
        raise RecordError(f"{where} has no axis {head.axis} for its {head.role}")
    rows = to_rows(array, head.axis)
    if head.role == CLASSES and rows.shape[-1] < 2:
        raise RecordError(
            f"{where} has one entry on axis {head.axis}: no classes; one logit is `probabilities`"
        )
    try:
        position_weights(rows, mask)
    except RecordError as err:
        raise RecordError(f"{where}, mask {head.mask}: {err}") from err
