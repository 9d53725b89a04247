"""Second moments of layers' inputs: what rounding needs to know of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lampq.core.measuring.model import Model, windows_of
from lampq.core.measuring.reference import input_batch
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import RecordError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.memory import give_back
from lampq.core.values.shelved_arrays import ShelvedArrays
from lampq.core.values.window import Window

# Together they must fit in memory beside the model.
_MOST_BYTES = 8 << 30


def input_moments(
    model: Model, layers: Sequence[Layer], batch: BatchLike, journal: Journal = NOWHERE
) -> Mapping[str, np.ndarray]:
    """Second moments E[x x^T] of the inputs of every layer that is a matrix, and of convolutions.

    Args:
        model: The float model, or any other whose inputs count.
        layers: Its records.
        batch: Calibration inputs, samples first.
        journal: Of the work that they are wanted for.

    Returns:
        By layer name: float32, shape (N, N), with N the columns of `as_rows`, or (groups, N, N) where groups of
        output channels see channels of their own. Layers are missing where the inputs do not tell which values a
        weight meets (embedding tables, convolutions of models that do not say how these move).

    Raises:
        RecordError: They would take more than 8 GiB, or an input is not finite.
    """
    windows = windows_of(model)
    groups = {name: window.groups for name, window in windows.items()}
    needed = 4 * sum(groups.get(layer.name, 1) * (layer.size // layer.channels) ** 2 for layer in layers)
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
        rows = _rows(records[name], values, positions, windows.get(name)) if name in records else None
        if rows is None:
            continue
        total = _checked_product(rows, name)
        if name in sums:
            sums[name] += total
        else:
            sums[name] = total.astype(np.float32)
        counts[name] = counts.get(name, 0) + rows.shape[-2]
    moments = ShelvedArrays()
    for name in list(sums):
        total = sums.pop(name)
        total /= np.float32(counts[name])
        moments = moments.with_array(name, total)
        journal.put(f"moments/{name}", moment=total.reshape(-1, total.shape[-1]))
    # Those are whole where this is there.
    journal.put("moments", present=np.array([layer.name in moments for layer in layers]))
    give_back()
    return moments


def _remembered(journal: Journal, layers: Sequence[Layer]) -> Mapping[str, np.ndarray] | None:
    kept = journal.get("moments", {"present": (len(layers),)})
    if kept is None:
        return None
    names = [layer.name for layer, present in zip(layers, kept["present"], strict=True) if present]
    moments = ShelvedArrays()
    for name in names:
        part = journal.get(f"moments/{name}", {"moment": (None, None)})
        if part is not None:
            moments = moments.with_array(name, _by_group(part["moment"]))
    return moments


def _by_group(stacked: np.ndarray) -> np.ndarray:
    """Moments that were stored one below the other."""
    columns = stacked.shape[1]
    return stacked if len(stacked) == columns else stacked.reshape(-1, columns, columns)


def _rows(layer: Layer, values: np.ndarray, positions: int, window: Window | None) -> np.ndarray | None:
    """`input_rows`, or for each group of channels what meets a row of weights, shape (groups, uses, N)."""
    rows = input_rows(layer, values, positions, window)
    if rows is not None or window is None or window.groups == 1:
        return rows
    parts = window.rows(values)
    fits = parts is not None and parts.shape[2] * layer.channels == layer.size
    return parts if fits and layer.channels % window.groups == 0 else None


def _checked_product(rows: np.ndarray, name: str) -> np.ndarray:
    """X^T X of the inputs of a layer, or of each group of them.

    Raises:
        RecordError: They are not finite, or too large.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.swapaxes(-1, -2) @ rows
    if not np.isfinite(rows).all():
        raise RecordError(f"the input of layer {name} is not finite")
    if not np.isfinite(total).all():
        largest = float(np.abs(rows).max())
        raise RecordError(
            f"the input of layer {name} reaches {largest:.3g}, whose square is beyond float32; check the "
            "preprocessing of the data, or use --rounding nearest"
        )
    return total


def input_rows(
    layer: Layer, values: np.ndarray, positions: int, window: Window | None = None
) -> np.ndarray | None:
    """What meets a row of weights, shape (uses, N), or None where that cannot be told, or differs by channel."""
    columns = layer.size // layer.channels
    if len(layer.shape) == 2:
        return values.reshape(-1, columns) if values.shape[-1] == columns else None
    patches = _patches(layer, values, positions)
    if patches is not None or window is None or window.groups > 1:
        return patches
    seen = window.rows(values)
    return seen[0] if seen is not None and seen.shape[2] == columns else None


def _patches(layer: Layer, values: np.ndarray, positions: int) -> np.ndarray | None:
    """Patches that neither overlap nor leave a rest, which are plain from the number of uses."""
    if len(layer.shape) != 4 or values.ndim != 4 or layer.channel_axis != 0:
        return None
    _, channels, height, width = layer.shape
    samples, own, rows, cols = values.shape
    if own != channels or rows % height or cols % width or positions != (rows // height) * (cols // width):
        return None
    patches = values.reshape(samples, channels, rows // height, height, cols // width, width)
    return patches.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels * height * width)
