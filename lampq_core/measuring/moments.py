"""Second moments of layers' inputs: what rounding needs to know of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import input_batch
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import RecordError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer

# Together they must fit in memory beside the model.
_MOST_BYTES = 8 << 30


def input_moments(
    model: Model, layers: Sequence[Layer], batch: BatchLike, journal: Journal = NOWHERE
) -> Mapping[str, np.ndarray]:
    """Second moments E[x x^T] of the inputs of every layer that is a matrix, and of patch embeddings.

    Args:
        model: The float model, or any other whose inputs count.
        layers: Its records.
        batch: Calibration inputs, samples first.
        journal: Of the work that they are wanted for.

    Returns:
        By layer name: float32, shape (N, N), with N the columns of `as_rows`. Layers are missing where the
        inputs do not tell which values a weight meets (convolutions with overlap, embedding tables).

    Raises:
        RecordError: They would take more than 8 GiB, or an input is not finite.
    """
    needed = 4 * sum((layer.size // layer.channels) ** 2 for layer in layers)
    if needed > _MOST_BYTES:
        raise RecordError(
            f"rounding to the layers' inputs would need {needed / 2**30:.0f} GiB for this model; "
            f"use --rounding nearest"
        )
    remembered = _remembered(journal, layers)
    if remembered is not None:
        return remembered
    records = {layer.name: layer for layer in layers}
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for name, values, positions in model.taps(input_batch(model, batch)):
        rows = input_rows(records[name], values, positions) if name in records else None
        if rows is None:
            continue
        total = _checked_product(rows, name)
        if name in sums:
            sums[name] += total
        else:
            sums[name] = total.astype(np.float32)
        counts[name] = counts.get(name, 0) + len(rows)
    moments = {name: total / np.float32(counts[name]) for name, total in sums.items()}
    present = np.array([layer.name in moments for layer in layers])
    parts = {name: {"moment": moment} for name, moment in moments.items()}
    journal.put_all({"moments": {"present": present}, **{f"moments/{name}": p for name, p in parts.items()}})
    return moments


def _remembered(journal: Journal, layers: Sequence[Layer]) -> dict[str, np.ndarray] | None:
    kept = journal.get("moments", {"present": (len(layers),)})
    if kept is None:
        return None
    names = [layer.name for layer, present in zip(layers, kept["present"], strict=True) if present]
    parts = {name: journal.get(f"moments/{name}", {"moment": (None, None)}) for name in names}
    return {name: part["moment"] for name, part in parts.items() if part is not None}


def _checked_product(rows: np.ndarray, name: str) -> np.ndarray:
    """X^T X of the inputs of a layer.

    Raises:
        RecordError: They are not finite, or too large.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.T @ rows
    if not np.isfinite(rows).all():
        raise RecordError(f"the input of layer {name} is not finite")
    if not np.isfinite(total).all():
        largest = float(np.abs(rows).max())
        raise RecordError(
            f"the input of layer {name} reaches {largest:.3g}, whose square is beyond float32; check the "
            "preprocessing of the data, or use --rounding nearest"
        )
    return total


def input_rows(layer: Layer, values: np.ndarray, positions: int) -> np.ndarray | None:
    """What meets a row of weights, shape (uses, N), or None where that cannot be told."""
    columns = layer.size // layer.channels
    if len(layer.shape) == 2:
        return values.reshape(-1, columns) if values.shape[-1] == columns else None
    if len(layer.shape) != 4 or values.ndim != 4 or layer.channel_axis != 0:
        return None
    _, channels, height, width = layer.shape
    samples, found, rows, cols = values.shape
    # Only patches that neither overlap nor leave a rest are plain from the number of uses.
    if found != channels or rows % height or cols % width or positions != (rows // height) * (cols // width):
        return None
    patches = values.reshape(samples, channels, rows // height, height, cols // width, width)
    return patches.transpose(0, 2, 4, 1, 3, 5).reshape(-1, columns)
