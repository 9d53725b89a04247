"""How far each output moved, in the terms of its role: what an evaluation shows beside the damage in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.readouts.parts import Part, parts_of
from lampq.core.readouts.readout import Readout
from lampq.core.readouts.role import Role
from lampq.core.readouts.rows import to_rows
from lampq.core.values.batch import Batch
from lampq.core.values.head import DIRECTION, VALUES, Head


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadComparison:
    """One output of two models.

    Attributes:
        name: The output.
        role: Its role.
        kl: Its part of the damage, nats: its own, times its weight.
        agreement: Share of its decisions that are the same, positions that do not count left out; None where it
            decides nothing.
        cosine: Mean cosine between the two, of each sample's values or of each direction; None for other roles.
        relative_error: |difference| / |reference|, Euclidean norms over everything that counts; None likewise.
    """

    name: str
    role: str
    kl: float
    agreement: float | None = None
    cosine: float | None = None
    relative_error: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, without those that the role does not have."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


def compare_heads(readout: Readout, reference: Batch, outputs: Batch) -> tuple[HeadComparison, ...]:
    """Compare two models output by output.

    Args:
        readout: Fitted to the reference.
        reference: What `Readout.reference` gives: outputs of the reference with the masks.
        outputs: Outputs of the other model.

    Raises:
        RecordError: The outputs do not fit the reference.
    """
    before, after = readout.decisions(reference), readout.decisions(outputs)
    return tuple(
        HeadComparison(
            name=head.name,
            role=head.role,
            kl=float(Readout(heads=(head,), roles=(role,)).damage(reference, outputs).mean()),
            agreement=agreement(before[head.name], after[head.name]) if head.name in before else None,
            **(_distances(head, role, reference, outputs) if head.role in (VALUES, DIRECTION) else {}),
        )
        for head, role in zip(readout.heads, readout.roles, strict=True)
    )


def agreement(before: np.ndarray, after: np.ndarray) -> float | None:
    """Share of the decisions that are the same, of those that count (0 or above before); None where none does."""
    counts = before >= 0
    return float((before == after)[counts].mean()) if counts.any() else None


def changed_share(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> float:
    """Share of decisions that differ, averaged over the outputs of which some decision counts."""
    shares = [agreement(before[name], after[name]) for name in before]
    known = [1 - share for share in shares if share is not None]
    return float(np.mean(known)) if known else 0.0


def _distances(head: Head, role: Role, reference: Batch, outputs: Batch) -> dict[str, float]:
    cosines, error, size = [], 0.0, 0.0
    for part in parts_of([head], [role], reference):
        rows, others = (_counted(part, batch) for batch in (reference, outputs))
        error += float(np.square(others - rows).sum())
        size += float(np.square(rows).sum())
        # A box is no direction: values are compared sample by sample.
        whole = (len(rows), 1, -1)
        vectors = (rows, others) if head.role == DIRECTION else (rows.reshape(whole), others.reshape(whole))
        cosines.append(_cosines(*vectors))
    known = np.concatenate(cosines)
    return {
        **({"cosine": float(known.mean())} if known.size else {}),
        **({"relative_error": float(np.sqrt(error / size))} if size > 0 else {}),
    }


def _counted(part: Part, batch: Batch) -> np.ndarray:
    """Rows of an output, float64, zero where they do not count."""
    rows = to_rows(part.of(batch), part.head.axis).astype(np.float64)
    return rows if part.mask is None else np.where(part.mask[..., None] != 0, rows, 0.0)


def _cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Cosines of the vectors along the last axis that have a length in the first array, flat."""
    lengths = np.linalg.norm(rows, axis=-1), np.linalg.norm(others, axis=-1)
    inner = (rows * others).sum(axis=-1)
    counts = lengths[0] > 0
    product = (lengths[0] * lengths[1])[counts]
    return np.where(product > 0, inner[counts] / np.where(product > 0, product, 1), 0.0)
