"""Two uniform grids, told apart by one bit: small and large probabilities, or negative and positive values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import ROLES
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_grid import floats
from lampq.core.values.activation_rule import LAST, SiteAxes, check_bits
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinGrid:
    """Multiples of `first` and of `second`, half of the codes for each; every value takes the nearest of all.

    Attributes:
        bits: Width.
        first: Step of small values, or minus that of negative ones; not 0.
        second: Step of the others, > 0.
    """

    bits: int
    first: float
    second: float

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not (self.first and self.second > 0):
            raise RecordError(f"quantizer twin: steps {self.first} and {self.second} cannot be")

    def apply(self, values: Any, axes: SiteAxes = LAST, xp: Any = np) -> Any:
        """Values moved to the nearest of both grids."""
        values, codes = floats(values, xp), 1 << (self.bits - 1)
        small = xp.clip(xp.round(values / self.first), 0, codes - 1) * self.first
        large = xp.clip(xp.round(values / self.second), 0, codes - 1) * self.second
        return xp.where(xp.abs(values - small) <= xp.abs(values - large), small, large)

    def fitted(self) -> Fitted:
        """As files hold it."""
        steps = {"first": self.first, "second": self.second}
        return Fitted(tag="twin", bits=self.bits, parameters=steps)


def _candidates(seen: Seen, bits: int) -> Iterator[TwinGrid]:
    codes = 1 << (bits - 1)
    if seen.high <= 0:
        return
    if seen.low < 0:
        for share in (1.0, 0.85, 0.7, 0.5):
            steps = share * seen.low / (codes - 1), share * seen.high / (codes - 1)
            yield TwinGrid(bits=bits, first=steps[0], second=steps[1])
        return
    for power in range(1, 9):
        for share in (1.0, 0.7):
            yield TwinGrid(
                bits=bits, first=2.0**-power * seen.high / codes, second=share * seen.high / (codes - 1)
            )


def _load(fitted: Fitted) -> TwinGrid:
    return TwinGrid(bits=fitted.bits, first=fitted.number("first"), second=fitted.number("second"))


TWIN = Quantizer(
    name="twin",
    roles=ROLES,
    candidates=_candidates,
    load=_load,
    source="Yuan et al. 2022 (PTQ4ViT), arXiv:2111.12293",
)
