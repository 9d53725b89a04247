"""Grids of powers: value = scale * 2^(-step * k), the last code 0 where small values would be lost otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_grid import floats
from lampq.core.values.activation_rule import LAST, SiteAxes, check_bits
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGrid:
    """Powers of 2^-step below a scale; the nearest in the logarithm.

    Attributes:
        tag: Its quantizer.
        bits: Width.
        scale: The largest value, > 0; as a share of each token's largest value where `dynamic`.
        step: Distance of neighbouring values in powers of two, > 0.
        zero: Whether the last code stands for 0.
        dynamic: Whether each token has its own scale.
    """

    tag: str
    bits: int
    scale: float
    step: float = 1.0
    zero: bool = False
    dynamic: bool = False

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not (0 < self.scale < np.inf and 0 < self.step < np.inf):
            raise RecordError(
                f"quantizer {self.tag}: scale {self.scale} and step {self.step} must be positive"
            )

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = np) -> Any:
        """Values moved to the nearest power; what is not positive goes to the last code."""
        values, last = floats(values, xp), (1 << self.bits) - 1
        scale: Any = self.scale
        if self.dynamic:
            largest = xp.amax(values, axis=axes.lines(values.ndim), keepdims=True)
            scale = xp.clip(largest, _TINY, None) * self.scale
        codes = xp.round(xp.log2(xp.clip(values / scale, _TINY, None)) * (-1.0 / self.step))
        codes = xp.clip(codes, 0, last)
        powers = xp.exp2(codes * -self.step) * scale
        return xp.where(codes < last, powers, xp.zeros_like(powers)) if self.zero else powers

    def fitted(self) -> Fitted:
        """As files hold it."""
        parameters = {"scale": self.scale, "step": self.step, "zero": float(self.zero)}
        return Fitted(tag=self.tag, bits=self.bits, parameters=parameters)


def powers(seen: Seen, bits: int, tag: str, steps: tuple[float, ...]) -> Iterator[LogGrid]:
    """Grids below the largest value, with and without a code for 0.

    Raises:
        RecordError: There are negative values, or nothing but zeros.
    """
    check_probabilities(seen, tag)
    if not seen.high > 0:
        raise RecordError(
            f"site {seen.name}: quantizer {tag} needs values above 0, and all are 0; choose another"
        )
    for step in steps:
        for scale in (1.0, 0.7, 0.5):
            for zero in (False, True):
                yield LogGrid(tag=tag, bits=bits, scale=scale * seen.high, step=step, zero=zero)


def check_probabilities(seen: Seen, tag: str) -> None:
    """Refuse values that are none of a softmax.

    Raises:
        RecordError: Some are negative or above 1.
    """
    if seen.low < 0 or seen.high > 1 + 1e-3:
        raise RecordError(
            f"site {seen.name}: quantizer {tag} is for probabilities, and its values run from {seen.low:.3g} to "
            f"{seen.high:.3g}; choose another"
        )


def load(fitted: Fitted) -> LogGrid:
    """The grid that a file describes.

    Raises:
        RecordError: Its parameters are of no such grid.
    """
    return LogGrid(
        tag=fitted.tag,
        bits=fitted.bits,
        scale=fitted.number("scale"),
        step=fitted.number("step", 1.0),
        zero=bool(fitted.number("zero", 0.0)),
        dynamic=fitted.tag == "token_log",
    )
