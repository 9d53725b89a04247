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

# Width of the factors: half of it would undo a tenth of what they give, and they are small.
_BITS = 8
_SCALE_BYTES = 4
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
        return factor_bytes(self.outer.codes.shape[1], self.inner.codes.shape[1], len(self.outer.codes))


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


def compensated(weight: Quantized, rows: np.ndarray, moment: np.ndarray, rank: int) -> Compensated:
    """A quantized weight with factors of a rank; see `compensate`.

    Args:
        weight: The codes, in whatever blocks.
        rows: What they stand for, float32, shape (C, N).
        moment: E[x x^T], shape (N, N).
        rank: 1 to min(C, N).

    Raises:
        RecordError: The rank is another, or the shapes do not fit.
    """
    error = rows - weight.dequantized().reshape(rows.shape)
    factors = compensate(error, moment, rank)
    left = np.square(error - factors.product(), dtype=np.float64).sum(axis=1)
    return Compensated(weight=weight, factors=factors, squared_error=left)


def rank_bytes(shape: tuple[int, ...], rank: int) -> int:
    """Bytes of the factors of a matrix; 0 without any."""
    return factor_bytes(shape[0], shape[1], rank) if rank else 0


def factor_bytes(outputs: int, inputs: int, rank: int) -> int:
    """Bytes that compensation of a rank takes: codes of 8 bits, and a scale for every row of either factor.

    >>> factor_bytes(128, 256, 4)
    1568
    """
    return rank * (outputs + inputs + 2 * _SCALE_BYTES)


def compensate(error: np.ndarray, moment: np.ndarray, rank: int) -> LowRank:
    """The factors that give back most of an error.

    Args:
        error: W - W_hat, float32, shape (C, N).
        moment: E[x x^T], shape (N, N), positive semi-definite.
        rank: 1 to min(C, N).

    Raises:
        RecordError: The rank is another, or the shapes do not fit.
    """
    outputs, inputs = error.shape
    if not 1 <= rank <= min(outputs, inputs):
        raise RecordError(f"rank {rank}: a layer of {outputs} x {inputs} takes 1 to {min(outputs, inputs)}")
    if moment.shape != (inputs, inputs):
        raise RecordError(f"a moment of shape {moment.shape} does not fit {inputs} inputs")
    exact = moment.astype(np.float64)
    damping = _DAMPING * np.trace(exact) / inputs + np.finfo(np.float64).tiny
    # Of fewer samples than inputs, sums in float32 have values a little below zero.
    squares, axes = np.linalg.eigh(exact)
    root = axes * np.sqrt(np.maximum(squares, 0) + damping)
    left, values, right = np.linalg.svd(error @ root, full_matrices=False)
    outer = left[:, :rank] * values[:rank]
    inner = np.linalg.solve(root.T, right[:rank].T).T
    return LowRank(outer=_coded(outer.T), inner=_coded(inner))


def _coded(rows: np.ndarray) -> Quantized:
    return quantize(np.ascontiguousarray(rows, dtype=np.float32), _BITS)
