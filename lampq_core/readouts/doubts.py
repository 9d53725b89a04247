"""Where the float outputs speak against the role that a description gave them.

A softmax does not see what its logits have in common, so training leaves that near where it began, at zero: what
classes share is a small part of their logits. Ratings, ages and angles are another thing: all entries of `2.9 3.4 3.1`
are mostly the 3. A description cannot tell the two apart where an output has no name that says anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.readouts.parts import output_of
from lampq.core.readouts.rows import to_rows
from lampq.core.values.batch import Batch
from lampq.core.values.head import CLASSES, PROBABILITIES, Head

# Rows of more entries are classes: language models shift their logits far from zero, and nobody rates by so many.
_FEW_ENTRIES = 16
_COMMON_SHARE = 0.9


def doubt_of(head: Head, reference: Batch) -> str:
    """A sentence for an output that was taken for logits and has values like numbers; else empty.

    Args:
        head: A judged head; one that the user chose is not doubted.
        reference: Its float outputs, canonical.
    """
    if not head.reason or head.activated or head.role not in (CLASSES, PROBABILITIES):
        return ""
    rows = _one_row_each([to_rows(output_of(group, head), head.axis) for group in reference.groups])
    if rows is None or not _like_numbers(rows):
        return ""
    return (
        f"output {head.name} is judged as {head.role} ({head.reason}), but its values lie between {rows.min():.4g} and "
        f"{rows.max():.4g}, which is like numbers and unlike logits; where they are numbers, say --output "
        f"{head.name}=values"
    )


def _one_row_each(groups: Sequence[np.ndarray]) -> np.ndarray | None:
    """Entries of every sample, float64, shape (S, C), where there is one row of few of them; else None."""
    if any(rows.shape[1] != 1 or rows.shape[2] > _FEW_ENTRIES for rows in groups):
        return None
    return np.concatenate([rows[:, 0] for rows in groups]).astype(np.float64)


def _like_numbers(rows: np.ndarray) -> bool:
    """Whether all are on one side of zero, and mostly the same: within rows, or over samples where rows have one."""
    if not (np.isfinite(rows).all() and (rows.min() > 0 or rows.max() < 0)):
        return False
    lone = rows.shape[1] == 1
    if not lone and rows.max() < 0 and np.allclose(np.exp(rows).sum(axis=1), 1, atol=1e-3):
        return False  # Logarithms of probabilities.
    common = rows.mean(axis=0 if lone else 1, keepdims=True)
    return len(rows) > 1 and float(np.mean(common**2)) >= _COMMON_SHARE * float(np.mean(rows**2))
