"""Rounding that knows the layer's inputs: the least error of the output, not of the weights.

Rounding each weight to its nearest level adds an error that inputs with a mean, or with correlated features, turn
into a large error of the output: dW enters as dW E[x x^T] dW^T. With the second moment of the inputs known, the
codes are chosen one input feature after the other, each making up for the errors of those before it, and then improved
by coordinate descent; the scales are refitted in between. The result has the form of that of `quantize`: codes on an
equally spaced grid and one scale per output channel, or per block of it.

Sources: Frantar, Ashkboos, Hoefler and Alistarh (2023), GPTQ, arXiv:2210.17323, for passing the error on, after
Hassibi and Stork (1993), Optimal Brain Surgeon; coordinate descent over codes follows Behdin et al. (2023),
QuantEase, arXiv:2309.01885.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from lampq.core.quantizing.lanes import Lanes, Slope, descend, pass_on, refit
from lampq.core.quantizing.output_metric import OutputMetric
from lampq.core.quantizing.quantizer import NARROW, Quantized, quantize
from lampq.core.values.errors import RecordError

# Weights at all widths handled side by side: rows enough that steps cost what their arithmetic does, few enough to keep
# memory small.
_SIDE_BY_SIDE = 1 << 20
_FEWEST_LANES = 256
# Sweeps of coordinate descent, scales refitted before each but the first.
_SWEEPS = 3
# Lanes that may beat rounding to nearest by less than this share are compared exactly.
_MARGIN = 1e-3


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
    return InputRounding(moment).quantize(rows, (bits,), grid=grid, block=block, threads=threads)[0]


class InputRounding:
    """Rounding to the inputs of one layer; what all its widths share is computed once.

    Args:
        moment: Second moment E[x x^T] of the inputs, shape (N, N), positive semi-definite; or (groups, N, N), where
            each group of output channels has inputs of its own.

    Raises:
        RecordError: It is no finite square matrix.
    """

    def __init__(self, moment: np.ndarray) -> None:
        self._columns = moment.shape[-1]
        groups = moment if moment.ndim == 3 else moment[None]
        self._metrics = [OutputMetric.from_moment(own) for own in groups]

    def quantize(
        self,
        rows: np.ndarray,
        widths: Sequence[int],
        *,
        grid: str = "auto",
        block: int | None = None,
        threads: int | None = None,
    ) -> tuple[Quantized, ...]:
        """See `round_to_inputs`; for several widths at once, the same codes as one by one but for rounding errors."""
        channels, columns = rows.shape
        block = columns if block is None else block
        if columns % block:
            raise RecordError(f"blocks of {block} do not divide {columns} input features")
        if columns != self._columns:
            raise RecordError(f"an input moment of {self._columns} features does not fit {columns} of a row")
        split = rows.reshape(-1, block)
        results = [quantize(split, bits, grid=grid, threads=threads) for bits in widths]
        if channels % len(self._metrics):
            raise RecordError(f"{channels} channels are no {len(self._metrics)} groups")
        lanes = max(_FEWEST_LANES, _SIDE_BY_SIDE // columns)
        for metric, part in self._parts(channels, max(1, lanes // len(widths))):
            chosen = [_part(result, part, channels) for result in results]
            _improve(metric, rows[part], chosen, narrow=grid == NARROW)
        if not any(self._metrics):
            return tuple(results)
        return tuple(_with_error(result, split) for result in results)

    def _parts(self, channels: int, most: int) -> Iterator[tuple[OutputMetric, slice]]:
        """Channels that are rounded side by side, with what their errors do; those without inputs are left out."""
        size = channels // len(self._metrics)
        for group, metric in enumerate(self._metrics):
            if metric is None:
                continue
            for start in range(group * size, (group + 1) * size, most):
                yield metric, slice(start, min(start + most, (group + 1) * size))


def _improve(metric: OutputMetric, rows: np.ndarray, nearest: Sequence[Quantized], *, narrow: bool) -> None:
    """Overwrite the nearest codes of some rows at some widths, and their scales, by better ones."""
    lanes = Lanes.from_nearest(metric, rows, nearest, narrow=narrow)
    plain = lanes.errors()
    pull = lanes.weight[: len(rows)] @ metric.moment
    slope = pass_on(lanes)
    active = np.arange(len(lanes.codes))
    descend(lanes, slope, active)
    for _ in range(_SWEEPS - 1):
        refit(lanes, slope, pull, active)
        # A lane that has not moved since its scales were refitted has nothing left to gain.
        active = descend(lanes, slope, active)
    better = _better(lanes, slope, plain).reshape(len(nearest), -1)
    codes = np.empty(lanes.codes.shape, dtype=np.uint8)
    codes[:, metric.order] = lanes.codes
    for each, mask, own, unit in zip(
        nearest,
        better,
        codes.reshape(len(nearest), *rows.shape),
        np.split(lanes.unit, len(nearest)),
        strict=True,
    ):
        each.codes.reshape(rows.shape)[mask] = own[mask]
        each.scale.reshape(len(rows), -1)[mask] = (unit / np.float32(each.step))[mask]


def _part(whole: Quantized, part: slice, channels: int) -> Quantized:
    """Views of some output channels."""
    blocks = len(whole.scale) // channels
    own = slice(part.start * blocks, part.stop * blocks)
    return dataclasses.replace(
        whole, codes=whole.codes[own], scale=whole.scale[own], squared_error=whole.squared_error[own]
    )


def _better(lanes: Lanes, slope: Slope, plain: np.ndarray) -> np.ndarray:
    """Lanes whose output error is at most that of other errors of the weights (K, N), bool, shape (K,)."""
    metric, better = lanes.metric, np.ones(len(lanes.codes), dtype=bool)
    # The energy counts the damping too, so it is no less than the output error.
    doubtful = metric.may_not_exceed(plain, (1 + _MARGIN) * slope.energy)
    if len(doubtful):
        better[doubtful] = metric.exact(lanes.errors()[doubtful]) <= metric.exact(plain[doubtful])
    return better


def _with_error(result: Quantized, rows: np.ndarray) -> Quantized:
    """The result with the squared error of its codes."""
    error = result.dequantized()
    error -= rows
    return dataclasses.replace(result, squared_error=np.einsum("ij,ij->i", error, error, dtype=np.float64))
