"""Rounding that knows the layer's inputs: the least error of the output, not of the weights.

Rounding each weight to its nearest level adds an error that inputs with a mean, or with correlated features, turn
into a large error of the output: dW enters as dW E[x x^T] dW^T. With the second moment of the inputs known, the
codes are chosen one input feature after the other, each passing its error on to those that can still make up for
it, and then improved by coordinate descent; the scales are refitted in between. The result has the form of that of
`quantize`: codes on an equally spaced grid and one scale per output channel, or per block of it.

Sources: Frantar, Ashkboos, Hoefler and Alistarh (2023), GPTQ, arXiv:2210.17323, for passing the error on, after
Hassibi and Stork (1993), Optimal Brain Surgeon; coordinate descent over codes follows Behdin et al. (2023),
QuantEase, arXiv:2309.01885.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from lampq.core.errors import RecordError
from lampq.core.quantizer import NARROW, Quantized, quantize

# Columns handled together: their own interactions step by step, those with all others by one matrix product.
_BLOCK = 64
# Added to the diagonal of the moment, as a fraction of its mean: the moment of few samples is not exact.
_DAMPING = 0.01
_SWEEPS = 2
_REFITS = 2


def round_to_inputs(
    rows: np.ndarray,
    bits: int,
    moment: np.ndarray,
    *,
    grid: str = "auto",
    block: int | None = None,
    threads: int | None = None,
) -> Quantized:
    """Quantize each row so that its product with the layer's inputs changes least.

    Args:
        rows: Float32, shape (C, N), finite: whole output channels.
        bits: 1 to 8.
        moment: Second moment E[x x^T] of the inputs, shape (N, N), positive semi-definite.
        grid: As for `quantize`, which chooses grid and starting scales.
        block: Weights of a row that share a scale, a divisor of N; None for all of them.
        threads: As for `quantize`.

    Returns:
        Codes whose output error sum(dW E[x x^T] dW^T) is at most that of `quantize` in every row; with blocks, in
        the layout of `as_rows`, shape (C * N / block, block).

    Raises:
        RecordError: The width, grid or block does not fit, or the moment has another shape or is not finite.
    """
    channels, columns = rows.shape
    block = columns if block is None else block
    if columns % block:
        raise RecordError(f"blocks of {block} do not divide {columns} input features")
    nearest = quantize(rows.reshape(-1, block), bits, grid=grid, threads=threads)
    if moment.shape != (columns, columns) or not np.isfinite(moment).all():
        raise RecordError(f"an input moment of shape {moment.shape} does not fit {columns} input features")
    mean = float(np.trace(moment)) / columns
    if not mean > 0:
        return nearest
    damped = moment.astype(np.float64)
    damped.flat[:: columns + 1] += _DAMPING * mean
    # Features that weigh most go first: they have the most others left to make up for them.
    order = np.argsort(-np.diag(damped), kind="stable")
    damped = damped[np.ix_(order, order)]
    weight = rows[:, order].astype(np.float64)
    levels = _Levels(
        step=nearest.step,
        offset=nearest.offset,
        lowest=1 if grid == NARROW and bits > 2 else 0,
        highest=(1 << bits) - 1,
        groups=order // block,
    )
    plain = nearest.codes.reshape(channels, columns)[:, order].astype(np.float64)
    plain_scale = nearest.scale.reshape(channels, -1).astype(np.float64)
    scale = plain_scale
    codes = _pass_on(weight, scale, levels, damped)
    for refit in range(_REFITS + 1):
        if refit:
            scale = _refitted(weight, codes, scale, levels, damped)
        codes = _descend(weight, codes, scale, levels, damped)
    scale = scale.astype(np.float32).astype(np.float64)
    exact = moment[np.ix_(order, order)]
    worse = _output_error(weight, levels.values(codes, scale), exact) > _output_error(
        weight, levels.values(plain, plain_scale), exact
    )
    codes[worse], scale[worse] = plain[worse], plain_scale[worse]
    restored = np.empty(rows.shape, dtype=np.uint8)
    restored[:, order] = codes.astype(np.uint8)
    result = dataclasses.replace(
        nearest, codes=restored.reshape(-1, block), scale=scale.astype(np.float32).reshape(-1)
    )
    error = np.square(result.dequantized() - rows.reshape(-1, block), dtype=np.float64).sum(axis=1)
    return dataclasses.replace(result, squared_error=error)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Levels:
    """value = scale * (step * code - offset), codes from `lowest` to `highest`; columns have scales by group."""

    step: int
    offset: int
    lowest: int
    highest: int
    groups: np.ndarray

    def values(self, codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """All values, shape (C, N), of codes (C, N) and scales (C, G)."""
        return scale[:, self.groups] * (self.step * codes - self.offset)

    def nearest(self, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Codes of one column of values, shape (C,), float64."""
        return np.clip(np.rint((values / scale + self.offset) / self.step), self.lowest, self.highest)


def _pass_on(weight: np.ndarray, scales: np.ndarray, levels: _Levels, moment: np.ndarray) -> np.ndarray:
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
            scale = scales[:, levels.groups[start + k]]
            code = levels.nearest(part[:, k], scale)
            codes[:, start + k] = code
            errors[:, k] = (part[:, k] - scale * (levels.step * code - levels.offset)) / near[k, k]
            part[:, k:] -= errors[:, k, None] * near[k, k:]
        left[:, stop:] -= errors @ answer[start:stop, stop:]
    return codes


def _descend(
    weight: np.ndarray, codes: np.ndarray, scales: np.ndarray, levels: _Levels, moment: np.ndarray
) -> np.ndarray:
    """Codes after every column in turn has taken its best value, all others given, a few times over."""
    codes = codes.copy()
    slope = (levels.values(codes, scales) - weight) @ moment
    for _ in range(_SWEEPS):
        for start in range(0, weight.shape[1], _BLOCK):
            stop = min(start + _BLOCK, weight.shape[1])
            near, part, chosen = moment[start:stop, start:stop], slope[:, start:stop], codes[:, start:stop]
            before = chosen.copy()
            for k in range(stop - start):
                scale = scales[:, levels.groups[start + k]]
                value = scale * (levels.step * chosen[:, k] - levels.offset) - part[:, k] / near[k, k]
                code = levels.nearest(value, scale)
                part += (scale * levels.step * (code - chosen[:, k]))[:, None] * near[k]
                chosen[:, k] = code
            moved = scales[:, levels.groups[start:stop]] * levels.step * (chosen - before)
            # The block's own columns are up to date already.
            slope[:, :start] += moved @ moment[start:stop, :start]
            slope[:, stop:] += moved @ moment[start:stop, stop:]
    return codes


def _refitted(
    weight: np.ndarray, codes: np.ndarray, scales: np.ndarray, levels: _Levels, moment: np.ndarray
) -> np.ndarray:
    """Scales of least output error for given codes, group after group; old ones where that is not positive."""
    scales = scales.copy()
    slope = (levels.values(codes, scales) - weight) @ moment
    for group in range(scales.shape[1]):
        columns = np.flatnonzero(levels.groups == group)
        integers = levels.step * codes[:, columns] - levels.offset
        through = integers @ moment[columns]
        power = np.einsum("ij,ij->i", integers, through[:, columns])
        pull = np.einsum("ij,ij->i", integers, slope[:, columns])
        best = scales[:, group] - pull / np.maximum(power, np.finfo(np.float64).tiny)
        best = np.where(best > np.finfo(np.float32).tiny, best, scales[:, group])
        slope += (best - scales[:, group])[:, None] * through
        scales[:, group] = best
    return scales


def _output_error(weight: np.ndarray, values: np.ndarray, moment: np.ndarray) -> np.ndarray:
    difference = values - weight
    return np.einsum("ij,ij->i", difference @ moment, difference)
