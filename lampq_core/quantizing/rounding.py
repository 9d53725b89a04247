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

from lampq.core.quantizing.quantizer import NARROW, Quantized, quantize
from lampq.core.values.errors import RecordError

# Columns handled together: their own interactions step by step, those with all others by one matrix product.
_BLOCK = 64
# Added to the diagonal of the moment, as a fraction of its mean: the moment of few samples is not exact.
_DAMPING = 0.01
_SWEEPS = 1
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
    return InputRounding(moment).quantize(rows, bits, grid=grid, block=block, threads=threads)


class InputRounding:
    """Rounding to the inputs of one layer; what all its widths share is computed once.

    Args:
        moment: Second moment E[x x^T] of the inputs, shape (N, N), positive semi-definite.

    Raises:
        RecordError: It is no finite square matrix.
    """

    def __init__(self, moment: np.ndarray) -> None:
        if moment.ndim != 2 or moment.shape[0] != moment.shape[1] or not np.isfinite(moment).all():
            raise RecordError(f"an input moment of shape {moment.shape} is no finite square matrix")
        self._columns = len(moment)
        # Features that weigh most go first: they have the most others left to make up for them.
        self._order = np.argsort(-np.diag(moment), kind="stable")
        self._exact = np.ascontiguousarray(moment[np.ix_(self._order, self._order)], dtype=np.float32)
        self._mean = float(np.trace(moment)) / max(1, self._columns)
        self._prepared: tuple[np.ndarray, np.ndarray] | None = None

    def quantize(
        self,
        rows: np.ndarray,
        bits: int,
        *,
        grid: str = "auto",
        block: int | None = None,
        threads: int | None = None,
    ) -> Quantized:
        """See `round_to_inputs`."""
        channels, columns = rows.shape
        block = columns if block is None else block
        if columns % block:
            raise RecordError(f"blocks of {block} do not divide {columns} input features")
        if columns != self._columns:
            raise RecordError(f"an input moment of {self._columns} features does not fit {columns} of a row")
        nearest = quantize(rows.reshape(-1, block), bits, grid=grid, threads=threads)
        if not self._mean > 0:
            return nearest
        damped, answer = self._factors()
        levels = _Levels(
            step=nearest.step,
            offset=nearest.offset,
            lowest=1 if grid == NARROW and bits > 2 else 0,
            highest=(1 << bits) - 1,
            groups=self._order // block,
        )
        # Features along the first axis: the loops below go through them one by one.
        weight = np.ascontiguousarray(rows.T[self._order], dtype=np.float32)
        plain = np.ascontiguousarray(nearest.codes.reshape(channels, columns).T[self._order], np.float32)
        plain_scale = np.ascontiguousarray(nearest.scale.reshape(channels, -1).T)
        scale = plain_scale
        codes = _pass_on(weight, scale, levels, answer)
        for refit in range(_REFITS + 1):
            if refit:
                scale = _refitted(weight, codes, scale, levels, damped)
            codes = _descend(weight, codes, scale, levels, damped)
        worse = self._output_error(weight, levels.values(codes, scale)) > self._output_error(
            weight, levels.values(plain, plain_scale)
        )
        codes[:, worse] = plain[:, worse]
        scale = np.where(worse, plain_scale, scale)
        restored = np.empty(rows.shape, dtype=np.uint8)
        restored[:, self._order] = codes.T
        result = dataclasses.replace(
            nearest, codes=restored.reshape(-1, block), scale=np.ascontiguousarray(scale.T).reshape(-1)
        )
        error = np.square(result.dequantized() - rows.reshape(-1, block), dtype=np.float64).sum(axis=1)
        return dataclasses.replace(result, squared_error=error)

    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        """The damped moment, and how all later weights best answer an error made at one: row by row."""
        if self._prepared is None:
            damped = self._exact.astype(np.float64)
            damped.flat[:: self._columns + 1] += _DAMPING * self._mean
            answer = np.linalg.cholesky(np.linalg.inv(damped)).T
            self._prepared = damped.astype(np.float32), np.ascontiguousarray(answer, dtype=np.float32)
        return self._prepared

    def _output_error(self, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
        difference = values - weight
        return np.einsum("ij,ij->j", self._exact @ difference, difference)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Levels:
    """value = scale * (step * code - offset), codes from `lowest` to `highest`; features have scales by group."""

    step: int
    offset: int
    lowest: int
    highest: int
    groups: np.ndarray

    def values(self, codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """All values, shape (N, C), of codes (N, C) and scales (G, C)."""
        return scale[self.groups] * (self.step * codes - self.offset)

    def nearest(self, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Codes of one feature's values, shape (C,)."""
        codes = values / scale
        codes += self.offset
        codes /= self.step
        np.rint(codes, out=codes)
        return np.clip(codes, self.lowest, self.highest, out=codes)


def _pass_on(weight: np.ndarray, scales: np.ndarray, levels: _Levels, answer: np.ndarray) -> np.ndarray:
    """Codes feature by feature, each one's error spread over the features that follow (GPTQ)."""
    left = weight.copy()
    codes = np.empty_like(weight)
    for start in range(0, len(weight), _BLOCK):
        stop = min(start + _BLOCK, len(weight))
        near, part = answer[start:stop, start:stop], left[start:stop]
        errors = np.empty_like(part)
        for k in range(stop - start):
            scale = scales[levels.groups[start + k]]
            code = levels.nearest(part[k], scale)
            codes[start + k] = code
            errors[k] = (part[k] - scale * (levels.step * code - levels.offset)) / near[k, k]
            part[k:] -= near[k, k:, None] * errors[k]
        left[stop:] -= answer[start:stop, stop:].T @ errors
    return codes


def _descend(
    weight: np.ndarray, codes: np.ndarray, scales: np.ndarray, levels: _Levels, moment: np.ndarray
) -> np.ndarray:
    """Codes after every feature in turn has taken its best value, all others given, a few times over."""
    codes = codes.copy()
    slope = moment @ (levels.values(codes, scales) - weight)
    for _ in range(_SWEEPS):
        for start in range(0, len(weight), _BLOCK):
            stop = min(start + _BLOCK, len(weight))
            near, part, chosen = moment[start:stop, start:stop], slope[start:stop], codes[start:stop]
            before = chosen.copy()
            for k in range(stop - start):
                scale = scales[levels.groups[start + k]]
                value = scale * (levels.step * chosen[k] - levels.offset) - part[k] / near[k, k]
                code = levels.nearest(value, scale)
                part += near[k][:, None] * (scale * levels.step * (code - chosen[k]))
                chosen[k] = code
            moved = scales[levels.groups[start:stop]] * levels.step * (chosen - before)
            # The block's own features are up to date already.
            slope[:start] += moment[:start, start:stop] @ moved
            slope[stop:] += moment[stop:, start:stop] @ moved
    return codes


def _refitted(
    weight: np.ndarray, codes: np.ndarray, scales: np.ndarray, levels: _Levels, moment: np.ndarray
) -> np.ndarray:
    """Scales of least output error for given codes, group after group; old ones where that is not positive."""
    scales = scales.copy()
    slope = moment @ (levels.values(codes, scales) - weight)
    for group in range(len(scales)):
        members = np.flatnonzero(levels.groups == group)
        integers = levels.step * codes[members] - levels.offset
        through = moment[:, members] @ integers
        power = np.einsum("ij,ij->j", integers, through[members])
        pull = np.einsum("ij,ij->j", integers, slope[members])
        best = scales[group] - pull / np.maximum(power, np.finfo(np.float32).tiny)
        best = np.where(best > np.finfo(np.float32).tiny, best, scales[group])
        slope += through * (best - scales[group])
        scales[group] = best
    return scales
