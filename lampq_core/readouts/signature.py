"""Short readings of outputs: what was decided, and numbers that tell one data set from another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.readouts.role import Role
from lampq.core.readouts.rows import from_rows, to_rows
from lampq.core.values.batch import Batch, Group
from lampq.core.values.head import CLASSES, Head

WIDTH = 8


def decisions(heads: Sequence[Head], roles: Sequence[Role], outputs: Batch) -> dict[str, np.ndarray]:
    """Chosen classes, or yes (1) and no (0), of each head that decides.

    Args:
        heads: Judged heads.
        roles: Their roles.
        outputs: Outputs; with masks, where positions that do not count shall be told.

    Returns:
        Head -> integers, samples first: a class per position, or an answer per entry. What does not count, under
        its mask or beyond the end of a shorter sample, is -1. Samples of several shapes are flat, shape (S, most).
    """
    chosen = {}
    for head, role in zip(heads, roles, strict=True):
        parts = [_decided(head, role, group) for group in outputs.groups]
        decided = [part for part in parts if part is not None]
        if decided:
            chosen[head.name] = _stacked(decided)
    return chosen


def _decided(head: Head, role: Role, group: Group) -> np.ndarray | None:
    decided = role.decisions(group[head.name])
    mask = group.get(head.mask or "")
    if decided is None or mask is None:
        return decided
    if head.role == CLASSES:
        return np.where(mask.reshape(decided.shape) != 0, decided, -1)
    rows = np.where(mask[..., None] != 0, to_rows(decided, head.axis), -1)
    return from_rows(rows, decided.shape, head.axis)


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    flat = [part.reshape(len(part), -1) for part in parts]
    most = max(part.shape[1] for part in flat)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, most - part.shape[1])), constant_values=-1) for part in flat]
    )


def signature(heads: Sequence[Head], outputs: Batch) -> np.ndarray:
    """A fixed random projection of each sample's outputs, float32, shape (S, 8).

    Entries are dealt out to eight sums with fixed signs, over the root of their number.
    """
    return np.concatenate([sum(_projected(group[head.name]) for head in heads) for group in outputs.groups])


def _projected(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(len(array), -1)
    padded = -(-flat.shape[1] // WIDTH) * WIDTH
    signs = np.random.default_rng(0).integers(0, 2, padded) * 2.0 - 1
    projected = np.empty((len(flat), WIDTH), dtype=np.float32)
    for row, sample in zip(projected, flat, strict=True):
        entries = np.zeros(padded)
        entries[: len(sample)] = np.where(np.isfinite(sample), sample, 0)
        row[:] = (entries * signs).reshape(-1, WIDTH).sum(axis=0) / np.sqrt(padded / WIDTH)
    return projected
