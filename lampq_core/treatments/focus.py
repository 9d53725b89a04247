"""Uniform inside an interval that is searched, saturated outside: zero need not be on the grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.treatments.log_grid import check_probabilities
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import PROBABILITIES
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_grid import floats
from lampq.core.values.activation_rule import LAST, SiteAxes, check_bits
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusGrid:
    """Equally spaced values from one end of an interval to the other.

    Attributes:
        bits: Width.
        low: Smallest value.
        high: Largest, above it.
    """

    bits: int
    low: float
    high: float

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not self.low < self.high:
            raise RecordError(f"quantizer focus: an interval from {self.low} to {self.high} cannot be")

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = np) -> Any:
        """Values moved to the nearest of the grid."""
        values, top = floats(values, xp), (1 << self.bits) - 1
        scale = (self.high - self.low) / top
        return xp.clip(xp.round((values - self.low) / scale), 0, top) * scale + self.low

    def fitted(self) -> Fitted:
        """As files hold it."""
        return Fitted(tag="focus", bits=self.bits, parameters={"low": self.low, "high": self.high})


def _candidates(seen: Seen, bits: int) -> Iterator[FocusGrid]:
    check_probabilities(seen, "focus")
    lows = {float(np.quantile(seen.values, share)) for share in (0.0, 0.1, 0.25)}
    highs = {float(np.quantile(seen.values, share)) for share in (0.9, 0.97, 0.99, 0.997, 1.0)}
    yield from (FocusGrid(bits=bits, low=a, high=b) for a in sorted(lows) for b in sorted(highs) if a < b)


def _load(fitted: Fitted) -> FocusGrid:
    return FocusGrid(bits=fitted.bits, low=fitted.number("low"), high=fitted.number("high"))


FOCUS = Quantizer(
    name="focus",
    roles=frozenset((PROBABILITIES,)),
    candidates=_candidates,
    load=_load,
    source="Jiang et al. 2025 (AIQViT), arXiv:2502.04628",
)
