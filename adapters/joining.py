"""Outputs of a batch that went through a model some samples at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lampq.core.readouts.canonical import canonical
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import Head


def joined(parts: Iterable[tuple[int, Mapping[str, np.ndarray]]], name: str) -> Batch:
    """The outputs of a batch, in its groups.

    Args:
        parts: In the order of the samples: the number of a group, and one row for each of some of its samples, by
            output.
        name: The model, for messages.

    Returns:
        Float32, samples first.

    Raises:
        AdapterError: Rows of one output differ in shape within a group.
    """
    groups: dict[int, list[Mapping[str, np.ndarray]]] = {}
    for number, rows in parts:
        groups.setdefault(number, []).append(rows)
    return Batch(
        [
            {output: _whole([rows[output] for rows in group], output, name) for output in group[0]}
            for group in groups.values()
        ]
    )


def canonical_outputs(outputs: Batch, heads: Sequence[Head]) -> Batch:
    """The outputs that are judged, each as its role reads it."""
    return Batch(
        [{head.name: canonical(head, group[head.name]) for head in heads} for group in outputs.groups]
    )


def _whole(pieces: Sequence[np.ndarray], output: str, name: str) -> np.ndarray:
    shapes = sorted({piece.shape[1:] for piece in pieces})
    if len(shapes) > 1:
        raise AdapterError(
            f"{name}: the shape of output {output} depends on what is in a sample ({shapes[0]}, {shapes[1]}): "
            f"leave it out with --output {output}=ignore"
        )
    return np.concatenate(pieces).astype(np.float32, copy=False)
