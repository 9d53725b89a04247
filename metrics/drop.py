"""How far a metric may fall below the float model's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lampq.core.values.errors import BudgetError
from lampq.metrics.metric import Metric

# What rounding of the last digit may add up to.
_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The most that a metric may get worse.

    Attributes:
        amount: In the metric's own unit, or as a share where `relative`; 0 allows nothing.
        relative: Whether it is a share of the float model's value (of 1 for rates of errors, `Metric.whole`).
    """

    amount: float
    relative: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.amount < math.inf or (self.relative and self.amount >= 1):
            raise BudgetError(f"largest drop {self}: must be at least 0, and less than 100%")

    def __str__(self) -> str:
        return f"{100 * self.amount:g}%" if self.relative else f"{self.amount:g}"

    @classmethod
    def of(cls, value: Drop | float | str) -> Drop:
        """From `1%`, a share of the float model's value, or a number in the metric's own unit.

        Raises:
            BudgetError: It is neither.

        >>> Drop.of("1%"), Drop.of(0.5)
        (Drop(amount=0.01, relative=True), Drop(amount=0.5, relative=False))
        """
        if isinstance(value, Drop):
            return value
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%"))
        except ValueError as err:
            raise BudgetError(f"largest drop {text!r}: write a number like 0.01, or a share like 1%") from err
        relative = text.endswith("%")
        return cls(amount=number / 100 if relative else number, relative=relative)

    def worst(self, metric: Metric, float_value: float) -> float:
        """The worst value that keeps it."""
        whole = abs(float_value) if metric.whole is None else metric.whole
        step = self.amount * whole if self.relative else self.amount
        return float_value - step if metric.higher_is_better else float_value + step

    def keeps(self, metric: Metric, value: float, float_value: float) -> bool:
        """Whether a value is no worse than that."""
        better = value - self.worst(metric, float_value)
        return (better if metric.higher_is_better else -better) >= -_SLACK * max(1.0, abs(float_value))
