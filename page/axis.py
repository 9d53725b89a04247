"""Scales and their ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_FARTHEST = 1e120


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A scale from values to a place between 0 and 1.

    Attributes:
        low: Value at 0.
        high: Value at 1, above `low`.
        ticks: Values that get a label, within the range.
        label: Text of a tick.
        logarithmic: Whether equal ratios take equal space.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    label: Callable[[float], str]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies; values outside the range are moved to its ends."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


def linear(
    values: Iterable[float], label: Callable[[float], str], *, zero: bool = False, about: int = 5
) -> Axis:
    """An axis over all values with round ticks, a little wider than they are.

    Args:
        values: Finite, at least one.
        label: Text of a tick.
        zero: Show 0 too; start there where no value is negative.
        about: Ticks to aim for.
    """
    # Files may hold any number; ends beyond these would overflow.
    values = [min(max(value, -_FARTHEST), _FARTHEST) for value in values]
    if zero:
        values.append(0.0)
    low, high = min(values), max(values)
    span = high - low
    # Values that are one and the same get an axis of their own magnitude.
    if span <= 1e-12 * abs(high):
        span = abs(high)
    if span < 1 / _FARTHEST:
        span = 1.0
    low, high = (low if zero and low == 0 else low - 0.04 * span), high + 0.06 * span
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(step * i for i in range(first, math.floor(high / step + 1e-9) + 1))
    return Axis(low=low, high=high, ticks=ticks, label=label)


def logarithmic(values: Iterable[float], label: Callable[[float], str]) -> Axis:
    """An axis over all values with a tick per decade, and at 2 and 5 where there are few decades.

    Args:
        values: Finite and above 0, at least one.
        label: Text of a tick.
    """
    values = [min(max(value, 1 / _FARTHEST), _FARTHEST) for value in values]
    room = (max(values) / min(values)) ** 0.05 * 1.05
    low, high = min(values) / room, max(values) * room
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    skip = max(1, len(decades) // 7)
    marks = [factor * 10.0**power for power in decades for factor in steps if power % skip == 0]
    ticks = tuple(mark for mark in marks if low <= mark <= high)
    return Axis(low=low, high=high, ticks=ticks, label=label, logarithmic=True)
