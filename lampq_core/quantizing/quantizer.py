"""Symmetric uniform quantization of a weight, clipped where the error is least; one scale per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lampq.core.values.blocks import row_block
from lampq.core.values.errors import RecordError
from lampq.core.values.gaussian_error import optimal_half_range
from lampq.core.values.threads import own_threads

GRIDS = ("mid_rise", "mid_tread")
NARROW = "narrow"

# A block of rows this large stays in a core's cache through all passes of the search.
_BLOCK = 1 << 16
# Fewer blocks are done before threads have started.
_FEWEST_FOR_THREADS = 4
_CANDIDATES = 12
_REFINEMENTS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantized:
    """A quantized weight: value = scale[:, None] * (step * codes - offset).

    Attributes:
        codes: uint8, shape (C, N), in 0 .. 2^bits - 1.
        scale: float32, shape (C,), > 0.
        step: 2 on the mid-rise grid (odd integers, symmetric), 1 on the mid-tread grid (zero is a level).
        offset: 2^bits - 1 on the mid-rise grid, 2^(bits - 1) on the mid-tread grid.
        bits: Width.
        squared_error: Sum of squared differences to the weight, per channel, float64, shape (C,).
    """

    codes: np.ndarray
    scale: np.ndarray
    step: int
    offset: int
    bits: int
    squared_error: np.ndarray

    @property
    def grid(self) -> str:
        """`mid_rise` or `mid_tread`."""
        return GRIDS[0] if self.step == 2 else GRIDS[1]

    def integers(self) -> np.ndarray:
        """Step * codes - offset as int8, shape (C, N): what the runtimes multiply."""
        return (self.codes.astype(np.int16) * np.int16(self.step) - np.int16(self.offset)).astype(np.int8)

    def dequantized(self) -> np.ndarray:
        """The values the codes stand for, float32, shape (C, N)."""
        return self.integers().astype(np.float32) * self.scale[:, None]


def as_rows(weight: np.ndarray, channel_axis: int, block: int | None = None) -> np.ndarray:
    """View or copy of a weight as rows that take one scale each, C-contiguous float32.

    Args:
        weight: Any weight.
        channel_axis: Its axis of output channels.
        block: Weights that share a scale where the shape allows it (`core.values.blocks`); None for whole channels.

    Returns:
        Shape (channels, weights per channel), or (channels * blocks, block).
    """
    rows = np.moveaxis(weight, channel_axis, 0).reshape(weight.shape[channel_axis], -1)
    size = row_block(weight.shape, channel_axis, block)
    return np.ascontiguousarray(rows if size is None else rows.reshape(-1, size), dtype=np.float32)


def from_rows(rows: np.ndarray, shape: tuple[int, ...], channel_axis: int) -> np.ndarray:
    """The inverse of `as_rows`: back to an array of `shape`, C-contiguous."""
    moved = (shape[channel_axis], *shape[:channel_axis], *shape[channel_axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, channel_axis))


class Codes(Protocol):
    """What writing needs of a quantized weight: `Quantized` itself, or one whose codes lie elsewhere."""

    @property
    def codes(self) -> np.ndarray:
        """uint8, shape (C, N)."""

    @property
    def scale(self) -> np.ndarray:
        """float32, shape (C,)."""

    @property
    def step(self) -> int:
        """Distance of neighbouring integers."""

    @property
    def offset(self) -> int:
        """Minus the smallest integer."""

    @property
    def bits(self) -> int:
        """Width."""

    def dequantized(self) -> np.ndarray:
        """The values the codes stand for, float32, shape (C, N)."""


class Valued(Protocol):
    """A weight at a width that knows its values: `Quantized`, or another form."""

    def dequantized(self) -> np.ndarray:
        """Float32, shape (C, N)."""


def weight_of(quantized: Valued, shape: tuple[int, ...], channel_axis: int) -> np.ndarray:
    """The values of a quantized weight, float32, in the shape of the weight, C-contiguous."""
    return from_rows(quantized.dequantized(), shape, channel_axis)


def quantize(rows: np.ndarray, bits: int, *, grid: str = "auto", threads: int | None = None) -> Quantized:
    """Quantize each row to `bits` bits with the scale of least squared error.

    A geometric series of clip points is tried for all rows at once; at each, the scale is the least-squares fit to the
    codes that the clip point gives, which can only lower the error. The best is then refined by alternating codes and
    scale (Lloyd's iteration under the constraint of equal steps).

    Args:
        rows: Float32, shape (C, N), finite.
        bits: 1 to 8.
        grid: `mid_rise`, `mid_tread`, or `auto`: the one with the smaller error over all rows (at 8 bits always
            mid-tread, because odd integers of 8 bits do not fit int8; at 1 bit always mid-rise). `narrow` is
            mid-tread without the most negative code, which some integer kernels cannot multiply; at 2 bits and
            below it is mid-tread, because three levels would be too dear.
        threads: Worker threads; None takes `own_threads`. The result does not depend on it.

    Raises:
        RecordError: The width or grid is unknown, or the rows are empty.
    """
    if grid not in (*GRIDS, "auto", NARROW):
        raise RecordError(f"grid {grid!r} is none of auto, mid_rise, mid_tread, narrow")
    if rows.ndim != 2 or rows.size == 0:
        raise RecordError(f"a weight of shape {rows.shape} cannot be quantized by rows")
    start_range = optimal_half_range(bits)
    if grid == NARROW:
        return _quantize_on(rows, bits, NARROW if bits > 2 else "mid_tread", start_range, threads)
    if bits == 8 or (grid == "auto" and bits == 1):
        grid = "mid_tread" if bits == 8 else "mid_rise"
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    grids = GRIDS if grid == "auto" else (grid,)
    results = [_quantize_on(rows, bits, name, start_range, threads) for name in grids]
    return min(results, key=lambda result: float(result.squared_error.sum()))


def _quantize_on(
    rows: np.ndarray, bits: int, grid: str, start_range: float, threads: int | None
) -> Quantized:
    codes = np.empty(rows.shape, dtype=np.uint8)
    scale = np.empty(len(rows), dtype=np.float32)
    error = np.empty(len(rows), dtype=np.float64)
    search = {"mid_rise": _search_mid_rise, "mid_tread": _search_mid_tread, NARROW: _search_narrow}[grid]

    def work(block: slice) -> None:
        codes[block], scale[block], error[block] = search(rows[block], bits, start_range)

    workers = threads or own_threads()
    blocks = list(_blocks(rows.shape))
    if workers == 1 or len(blocks) < _FEWEST_FOR_THREADS:
        for block in blocks:
            work(block)
    else:
        with ThreadPoolExecutor(min(workers, len(blocks))) as pool:
            list(pool.map(work, blocks))
    mid_rise = grid == "mid_rise"
    return Quantized(
        codes=codes,
        scale=scale,
        step=2 if mid_rise else 1,
        offset=(1 << bits) - 1 if mid_rise else 1 << (bits - 1),
        bits=bits,
        squared_error=error,
    )


def _blocks(shape: tuple[int, int]) -> Iterator[slice]:
    height = max(1, _BLOCK // shape[1])
    for start in range(0, shape[0], height):
        yield slice(start, min(start + height, shape[0]))


def _clip_points(rows: np.ndarray, start_range: float) -> np.ndarray:
    """Half-ranges to try, shape (K, C): from well inside the Gaussian optimum to the largest entry."""
    largest = np.abs(rows).max(axis=1)
    spread = np.sqrt(np.einsum("ij,ij->i", rows, rows) / rows.shape[1])
    # A row of zeros has no range; any positive one represents it as well as another.
    largest = np.maximum(largest, np.float32(1e-30))
    low = np.clip(0.6 * start_range * spread, 0.2 * largest, 0.7 * largest)
    ratio = (largest / low) ** np.float32(1 / (_CANDIDATES - 1))
    return low * ratio ** np.arange(_CANDIDATES, dtype=np.float32)[:, None]


def _search_mid_rise(
    rows: np.ndarray, bits: int, start_range: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scale (of odd integers) and squared error. By symmetry the search sees magnitudes alone."""
    magnitude = np.abs(rows)
    top = np.float32((1 << (bits - 1)) - 1)
    power = np.einsum("ij,ij->i", rows, rows)
    buffer = np.empty_like(magnitude)

    def fit(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        np.multiply(magnitude, (1 / cell)[:, None], out=buffer)
        np.floor(buffer, out=buffer)
        # Twice as fast as the minimum.
        buffer.clip(0, top, out=buffer)
        np.add(buffer, np.float32(0.5), out=buffer)
        return _least_squares(magnitude, buffer, power)

    cell = _best_fit(fit, _clip_points(rows, start_range) / (top + 1))
    np.multiply(magnitude, (1 / cell)[:, None], out=buffer)
    np.floor(buffer, out=buffer).clip(0, top, out=buffer)
    np.add(buffer, np.float32(0.5), out=buffer)
    # Half the distance to zero in steps, on the side of the weight.
    codes = (np.copysign(buffer, rows) + (top + np.float32(0.5))).astype(np.uint8)
    np.multiply(buffer, cell[:, None], out=buffer)
    np.subtract(buffer, magnitude, out=buffer)
    return codes, cell / 2, np.einsum("ij,ij->i", buffer, buffer, dtype=np.float64)


def _search_narrow(
    rows: np.ndarray, bits: int, start_range: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scale and squared error on the symmetric range -(2^(b-1) - 1) .. 2^(b-1) - 1."""
    return _search_mid_tread(rows, bits, start_range, lowest=1 - (1 << (bits - 1)))


def _search_mid_tread(
    rows: np.ndarray, bits: int, start_range: float, *, lowest: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scale and squared error on the signed range from `lowest`, -2^(b-1) by default, to 2^(b-1) - 1."""
    half = np.float32(1 << (bits - 1))
    low = -half if lowest is None else np.float32(lowest)
    power = np.einsum("ij,ij->i", rows, rows)
    buffer = np.empty_like(rows)

    def fit(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        np.multiply(rows, (1 / scale)[:, None], out=buffer)
        np.rint(buffer, out=buffer)
        buffer.clip(low, half - 1, out=buffer)
        return _least_squares(rows, buffer, power)

    # The largest code is half - 1, so the clip point of the larger side lies half a step beyond it.
    scale = _best_fit(fit, _clip_points(rows, start_range) / max(half - np.float32(0.5), np.float32(1)))
    fit(scale)
    codes = (buffer + half).astype(np.uint8)
    np.multiply(buffer, scale[:, None], out=buffer)
    np.subtract(buffer, rows, out=buffer)
    return codes, scale, np.einsum("ij,ij->i", buffer, buffer, dtype=np.float64)


def _least_squares(
    rows: np.ndarray, integers: np.ndarray, power: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The scale that fits integers to rows best, per row, and the squared error at that scale."""
    cross = np.einsum("ij,ij->i", rows, integers)
    square = np.maximum(np.einsum("ij,ij->i", integers, integers), np.float32(1e-30))
    return cross / square, power - cross * cross / square


def _best_fit(fit: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], starts: np.ndarray) -> np.ndarray:
    """The scale of least error, shape (C,): the best of starts (K, C), then refined while it improves."""
    tiny = np.float32(1e-38)
    best_scale = starts[-1].copy()
    best_error = np.full(starts.shape[1], np.inf, dtype=np.float32)

    def attempt(start: np.ndarray) -> np.ndarray:
        scale, error = fit(start)
        better = (error < best_error) & (scale > tiny)
        np.copyto(best_scale, scale, where=better)
        np.copyto(best_error, error, where=better)
        return better

    for start in starts:
        attempt(start)
    for _ in range(_REFINEMENTS):
        if not attempt(best_scale).any():
            break
    return best_scale
