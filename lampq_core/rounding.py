"""Rounding that knows the layer's inputs: the least error of the output, not of the weights.

Rounding each weight to its nearest level adds an error that inputs with a mean, or with correlated features, turn
into a large error of the output: dW enters as dW E[x x^T] dW^T. With the second moment of the inputs known, the
codes are chosen one input feature after the other, each passing its error on to those that can still make up for
it, and then improved by coordinate descent; the scale is refitted in between. The format of the result is that of
`quantize`: codes on an equally spaced grid and one scale per output channel.

Sources: Frantar, Ashkboos, Hoefler and Alistarh (2023), GPTQ, arXiv:2210.17323, for passing the error on, after
Hassibi and Stork (1993), Optimal Brain Surgeon; coordinate descent over codes follows Behdin et al. (2023),
QuantEase, arXiv:2309.01885.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.errors import RecordError
from lampq.core.layer import Layer
from lampq.core.model import Model
from lampq.core.quantizer import NARROW, Quantized, as_rows, from_rows, quantize

# Columns handled together: their own interactions step by step, those with all others by one matrix product.
_BLOCK = 64
# Added to the diagonal of the moment, as a fraction of its mean: the moment of few samples is not exact.
_DAMPING = 0.01
_SWEEPS = 2
_REFITS = 2


def input_moments(model: Model, layers: Sequence[Layer], batch: np.ndarray) -> dict[str, np.ndarray]:
    """Second moments E[x x^T] of the inputs of every layer that is a matrix, and of patch embeddings.

    Args:
        model: The float model, or any other whose inputs count.
        layers: Its records.
        batch: Calibration inputs, samples first.

    Returns:
        By layer name: float32, shape (N, N), with N the columns of `as_rows`. Layers are missing where the
        inputs do not tell which values a weight meets (convolutions with overlap, embedding tables).
    """
    records = {layer.name: layer for layer in layers}
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for name, values, positions in model.taps(batch):
        rows = _input_rows(records[name], values, positions) if name in records else None
        if rows is None:
            continue
        sums[name] = sums.get(name, 0) + rows.T @ rows
        counts[name] = counts.get(name, 0) + len(rows)
    return {name: (total / counts[name]).astype(np.float32) for name, total in sums.items()}


def round_to_inputs(
    rows: np.ndarray, bits: int, moment: np.ndarray, *, grid: str = "auto", threads: int | None = None
) -> Quantized:
    """Quantize each row so that its product with the layer's inputs changes least.

    Args:
        rows: Float32, shape (C, N), finite.
        bits: 1 to 8.
        moment: Second moment E[x x^T] of the inputs, shape (N, N), positive semi-definite.
        grid: As for `quantize`, which chooses grid and starting scale.
        threads: As for `quantize`.

    Returns:
        Codes whose output error sum(dW E[x x^T] dW^T) is at most that of `quantize` in every row.

    Raises:
        RecordError: The width or grid is unknown, or the moment has another shape or is not finite.
    """
    nearest = quantize(rows, bits, grid=grid, threads=threads)
    columns = rows.shape[1]
    if moment.shape != (columns, columns) or not np.isfinite(moment).all():
        raise RecordError(f"an input moment of shape {moment.shape} does not fit {columns} input features")
    mean = float(np.trace(moment)) / columns
    if not mean > 0:
        return nearest
    damped = moment.astype(np.float64) + _DAMPING * mean * np.eye(columns)
    # Features that weigh most go first: they have the most others left to make up for them.
    order = np.argsort(-np.diag(damped), kind="stable")
    damped = damped[np.ix_(order, order)]
    weight = rows[:, order].astype(np.float64)
    levels = _Levels(
        step=nearest.step,
        offset=nearest.offset,
        lowest=1 if grid == NARROW and bits > 2 else 0,
        highest=(1 << bits) - 1,
    )
    scale = nearest.scale.astype(np.float64)
    codes = _pass_on(weight, scale, levels, damped)
    for refit in range(_REFITS + 1):
        if refit:
            scale = _refitted(weight, codes, scale, levels, damped)
        codes = _descend(weight, codes, scale, levels, damped)
    scale = scale.astype(np.float32).astype(np.float64)
    plain, plain_scale = nearest.codes[:, order].astype(np.float64), nearest.scale.astype(np.float64)
    worse = _output_error(weight, levels.values(codes, scale), moment, order) > _output_error(
        weight, levels.values(plain, plain_scale), moment, order
    )
    codes[worse], scale[worse] = plain[worse], plain_scale[worse]
    restored = np.empty(rows.shape, dtype=np.uint8)
    restored[:, order] = codes.astype(np.uint8)
    result = dataclasses.replace(nearest, codes=restored, scale=scale.astype(np.float32))
    error = np.square(result.dequantized() - rows, dtype=np.float64).sum(axis=1)
    return dataclasses.replace(result, squared_error=error)


class InputRounding:
    """Quantizes the layers of a model to their inputs; layers without a moment to the nearest level.

    An instance is a `Quantizer` for `core.recentre`.

    Args:
        model: The float model.
        layers: Its records.
        widths: Weight bits of the options.
        moments: By layer name, from `input_moments`.
    """

    def __init__(
        self, model: Model, layers: Sequence[Layer], widths: Sequence[int], moments: Mapping[str, np.ndarray]
    ) -> None:
        self._model = model
        self._layers = layers
        self._widths = widths
        self._moments = moments

    def __call__(self, layer: int, option: int) -> np.ndarray:
        """The dequantized weight of a layer at an option, in the shape of the layer's record."""
        record = self._layers[layer]
        values = self.quantized(layer, option).dequantized()
        return from_rows(values, record.shape, record.channel_axis)

    def quantized(self, layer: int, option: int) -> Quantized:
        """Codes and scales of a layer at an option."""
        record = self._layers[layer]
        rows = as_rows(self._model.weight(record.name), record.channel_axis)
        moment = self._moments.get(record.name)
        if moment is None:
            return quantize(rows, self._widths[option], grid=self._model.grid)
        return round_to_inputs(rows, self._widths[option], moment, grid=self._model.grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Levels:
    """value = scale * (step * code - offset), codes from `lowest` to `highest`."""

    step: int
    offset: int
    lowest: int
    highest: int

    def values(self, codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return scale[:, None] * (self.step * codes - self.offset)

    def nearest(self, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Codes of one column of values, shape (C,), float64."""
        return np.clip(np.rint((values / scale + self.offset) / self.step), self.lowest, self.highest)


def _pass_on(weight: np.ndarray, scale: np.ndarray, levels: _Levels, moment: np.ndarray) -> np.ndarray:
    """Codes column by column, each column's error spread over the columns that follow (GPTQ)."""
    # Row k of this factor is how all later weights best answer an error made at k.
    answer = np.linalg.cholesky(np.linalg.inv(moment)).T
    left = weight.copy()
    codes = np.empty_like(weight)
    for start in range(0, weight.shape[1], _BLOCK):
        stop = min(start + _BLOCK, weight.shape[1])
        near, part = answer[start:stop, start:stop], left[:, start:stop]
        errors = np.empty_like(part)
        for k in range(stop - start):
            code = levels.nearest(part[:, k], scale)
            codes[:, start + k] = code
            errors[:, k] = (part[:, k] - scale * (levels.step * code - levels.offset)) / near[k, k]
            part[:, k:] -= errors[:, k, None] * near[k, k:]
        left[:, stop:] -= errors @ answer[start:stop, stop:]
    return codes


def _descend(
    weight: np.ndarray, codes: np.ndarray, scale: np.ndarray, levels: _Levels, moment: np.ndarray
) -> np.ndarray:
    """Codes after every column in turn has taken its best value, all others given, a few times over."""
    codes = codes.copy()
    slope = (levels.values(codes, scale) - weight) @ moment
    for _ in range(_SWEEPS):
        for start in range(0, weight.shape[1], _BLOCK):
            stop = min(start + _BLOCK, weight.shape[1])
            near, part, chosen = moment[start:stop, start:stop], slope[:, start:stop], codes[:, start:stop]
            before = chosen.copy()
            for k in range(stop - start):
                value = scale * (levels.step * chosen[:, k] - levels.offset) - part[:, k] / near[k, k]
                code = levels.nearest(value, scale)
                part += (scale * levels.step * (code - chosen[:, k]))[:, None] * near[k]
                chosen[:, k] = code
            moved = (scale[:, None] * levels.step) * (chosen - before)
            # The block's own columns are up to date already.
            slope[:, :start] += moved @ moment[start:stop, :start]
            slope[:, stop:] += moved @ moment[start:stop, stop:]
    return codes


def _refitted(
    weight: np.ndarray, codes: np.ndarray, scale: np.ndarray, levels: _Levels, moment: np.ndarray
) -> np.ndarray:
    """The scale of least output error for given codes, per row; the old one where that is not positive."""
    integers = levels.step * codes - levels.offset
    through = integers @ moment
    power = np.einsum("ij,ij->i", integers, through)
    best = np.einsum("ij,ij->i", weight, through) / np.maximum(power, np.finfo(np.float64).tiny)
    return np.where(best > np.finfo(np.float32).tiny, best, scale)


def _output_error(
    weight: np.ndarray, values: np.ndarray, moment: np.ndarray, order: np.ndarray
) -> np.ndarray:
    difference = values - weight
    return np.einsum("ij,ij->i", difference @ moment[np.ix_(order, order)], difference)


def _input_rows(layer: Layer, values: np.ndarray, positions: int) -> np.ndarray | None:
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
