"""Low-rank compensation: what rounding has taken from a layer's output, given back by two thin factors.

y = W_hat x + B (A x). Of all factors of a rank those change E|(W - W_hat - B A) x|^2 to the least possible that are cut
from the singular value decomposition of (W - W_hat) L, with L L^T the second moment of x.

Source: Jiang et al. (2025), AIQViT, arXiv:2502.04628, which learns them; the closed form is that of reduced-rank
regression (Izenman, 1975, doi:10.1016/0047-259X(75)90042-1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.quantizing.quantizer import Codes, Quantized, quantize
from lampq.core.values.errors import RecordError
from lampq.core.values.factors import FACTOR_BITS, factor_bytes, takes_rank

# Added to the diagonal of the moment, as a fraction of its mean: directions without power cannot be divided by.
_DAMPING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRank:
    """B A, in codes. C outputs, N inputs, rank R.

    Attributes:
        outer: B, a scale for each of its columns, which are rows here: shape (R, C).
        inner: A, a scale for each of its rows, shape (R, N).
    """

    outer: Quantized
    inner: Quantized

    def product(self) -> np.ndarray:
        """B A, float32, shape (C, N)."""
        return self.outer.dequantized().T @ self.inner.dequantized()

    @property
    def size_bytes(self) -> int:
        """Bytes of codes and scales."""
        rank, outputs = self.outer.codes.shape
        return factor_bytes((outputs, self.inner.codes.shape[1]), rank)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compensated:
    """A quantized weight and the factors that give back what rounding has taken. C outputs, N inputs.

    Attributes:
        weight: Its codes.
        factors: The factors.
        squared_error: Sum of squared differences of both together to the weight, per output, float64, shape (C,).
    """

    weight: Codes
    factors: LowRank
    squared_error: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """Of the weight alone."""
        return self.weight.codes

    @property
    def scale(self) -> np.ndarray:
        """Of the weight alone."""
        return self.weight.scale

    @property
    def step(self) -> int:
        """Distance of neighbouring integers."""
        return self.weight.step

    @property
    def offset(self) -> int:
        """Minus the smallest integer."""
        return self.weight.offset

    @property
    def bits(self) -> int:
        """Width of the weight."""
        return self.weight.bits

    def dequantized(self) -> np.ndarray:
        """The values of both together, float32, shape (C, N)."""
        product = self.factors.product()
        return self.weight.dequantized().reshape(product.shape) + product


class Compensation:
    """Makes the factors of one layer, for whatever width and rank.

    Args:
        moment: E[x x^T] of its N inputs, shape (N, N), positive semi-definite.
    """

    def __init__(self, moment: np.ndarray) -> None:
        exact = moment.astype(np.float64)
        damping = _DAMPING * np.trace(exact) / len(exact) + np.finfo(np.float64).tiny
        # Of fewer samples than inputs, sums in float32 have values a little below zero.
        squares, self._axes = np.linalg.eigh(exact)
        self._roots = np.sqrt(np.maximum(squares, 0) + damping)

    def cut(self, error: np.ndarray) -> Cut:
        """The factors of an error W - W_hat, shape (C, N), of all ranks."""
        left, values, right = np.linalg.svd(error @ (self._axes * self._roots), full_matrices=False)
        return Cut(outer=left * values, inner=(right / self._roots) @ self._axes.T)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """Factors of one error, the first columns and rows giving back most. K = min(C, N).

    Attributes:
        outer: Shape (C, K).
        inner: Shape (K, N).
    """

    outer: np.ndarray
    inner: np.ndarray

    def factors(self, rank: int) -> LowRank:
        """Those of a rank, 1 to K, in codes."""
        return LowRank(outer=_coded(self.outer[:, :rank].T), inner=_coded(self.inner[:rank]))


def compensated(weight: Codes, rows: np.ndarray, factors: LowRank) -> Compensated:
    """A quantized weight with factors.

    Args:
        weight: The codes, in whatever blocks.
        rows: What they stand for, float32, shape (C, N).
        factors: The factors.
    """
    left = rows - weight.dequantized().reshape(rows.shape) - factors.product()
    squared_error = np.square(left, dtype=np.float64).sum(axis=1)
    return Compensated(weight=weight, factors=factors, squared_error=squared_error)


def compensate(error: np.ndarray, moment: np.ndarray, rank: int) -> LowRank:
    """The factors that give back most of an error.

    Args:
        error: W - W_hat, float32, shape (C, N).
        moment: E[x x^T], shape (N, N), positive semi-definite.
        rank: 1 to min(C, N).

    Raises:
        RecordError: The rank is another, or the shapes do not fit.
    """
    check_factors(error.shape, moment.shape, rank)
    return Compensation(moment).cut(error).factors(rank)


def check_factors(shape: tuple[int, ...], moment: tuple[int, ...], rank: int) -> None:
    """Refuse a rank that a weight cannot have, or inputs that are not its own.

    Args:
        shape: Of the weight in rows, (C, N).
        moment: Shape of E[x x^T].
        rank: Of the factors.

    Raises:
        RecordError: Says which.
    """
    outputs, inputs = shape
    if not rank or not takes_rank(shape, rank):
        raise RecordError(f"rank {rank}: a layer of {outputs} x {inputs} takes 1 to {min(outputs, inputs)}")
    if moment != (inputs, inputs):
        raise RecordError(f"a moment of shape {moment} does not fit {inputs} inputs")


def _coded(rows: np.ndarray) -> Quantized:
    return quantize(np.ascontiguousarray(rows, dtype=np.float32), FACTOR_BITS)
