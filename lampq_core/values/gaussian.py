"""Gaussian statistics of a tensor, per channel or as a whole, that merge exactly across shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.messages import described

# Values of an array that are copied at a time: inputs of convolutions are large.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gaussian:
    """First and second moments and the range of a tensor.

    Attributes:
        mean: Mean per channel, shape (C,); C = 1 for a whole tensor.
        std: Population standard deviation per channel, shape (C,), >= 0.
        min: Smallest value per channel, shape (C,).
        max: Largest value per channel, shape (C,).
        count: Values per channel, > 0.
    """

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    count: int

    def __post_init__(self) -> None:
        for name in ("mean", "std", "min", "max"):
            values = np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64))
            if values.ndim != 1 or values.shape != np.atleast_1d(self.mean).shape:
                raise RecordError(f"Gaussian.{name} has shape {values.shape}; expected one value per channel")
            if not np.isfinite(values).all():
                raise RecordError(f"Gaussian.{name} is not finite in channel {_first_bad(values)}")
            object.__setattr__(self, name, values)
        if (self.std < 0).any():
            raise RecordError("Gaussian.std is negative")
        if (self.min > self.max).any():
            raise RecordError("Gaussian.min exceeds Gaussian.max")
        if self.count <= 0:
            raise RecordError(f"Gaussian.count is {self.count}; statistics need at least one value")

    @classmethod
    def from_array(cls, values: np.ndarray, *, channel_axis: int | None = None) -> Gaussian:
        """Measure an array.

        Args:
            values: Any float array, at least one value.
            channel_axis: The axis whose entries are kept apart; None measures the whole tensor.

        Raises:
            RecordError: The array is empty or holds NaN or infinity.

        >>> g = Gaussian.from_array(np.array([[1.0, 3.0], [2.0, 2.0]]), channel_axis=0)
        >>> g.mean.tolist(), g.std.tolist()
        ([2.0, 2.0], [1.0, 0.0])
        """
        values = np.asarray(values)
        if values.size == 0:
            raise RecordError(f"an array of shape {values.shape} has no values to measure")
        if channel_axis is None:
            rows = values.reshape(1, -1)
        else:
            rows = np.moveaxis(values, channel_axis, 0).reshape(values.shape[channel_axis], -1)
        if rows.dtype != np.float64:
            rows = rows.astype(np.float32, copy=False)
        low, high = rows.min(axis=1), rows.max(axis=1)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise RecordError("the values hold NaN or infinity")
        mean = rows.mean(axis=1, dtype=np.float64)
        return cls(mean=mean, std=np.sqrt(_mean_square(rows, mean)), min=low, max=high, count=rows.shape[1])

    @property
    def second_moment(self) -> np.ndarray:
        """E[x^2] per channel, shape (C,)."""
        return self.std**2 + self.mean**2

    def merge(self, other: Gaussian) -> Gaussian:
        """Statistics of both samples together, equal to measuring their concatenation.

        Source: Chan, Golub and LeVeque (1983), pairwise update of mean and sum of squares.

        Raises:
            RecordError: The two have different numbers of channels.
        """
        if self.mean.shape != other.mean.shape:
            raise RecordError(f"cannot merge statistics of {len(self.mean)} and {len(other.mean)} channels")
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        square = self.std**2 * self.count + other.std**2 * other.count
        square = square + shift**2 * (self.count * other.count / count)
        return Gaussian(
            mean=mean,
            std=np.sqrt(square / count),
            min=np.minimum(self.min, other.min),
            max=np.maximum(self.max, other.max),
            count=count,
        )

    def whole(self) -> Gaussian:
        """The statistics of all channels together (every channel has the same count)."""
        mean = self.mean.mean()
        variance = (self.std**2).mean() + ((self.mean - mean) ** 2).mean()
        return Gaussian(
            mean=np.array([mean]),
            std=np.sqrt([variance]),
            min=self.min.min(keepdims=True),
            max=self.max.max(keepdims=True),
            count=self.count * len(self.mean),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers for a JSON file."""
        return {
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "min": self.min.tolist(),
            "max": self.max.tolist(),
            "count": self.count,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gaussian:
        """The inverse of `to_json`.

        Raises:
            RecordError: A field is missing or impossible.
        """
        try:
            arrays = {
                name: np.asarray(data[name], dtype=np.float64) for name in ("mean", "std", "min", "max")
            }
            return cls(**arrays, count=int(data["count"]))
        except RecordError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise RecordError(f"malformed statistics: {described(err)}") from err


def _first_bad(values: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(values))[0])


def _mean_square(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """E[(x - mean)^2] of every row, float64, shape (C,).

    Shifting by the mean first keeps float32 data with a large offset from cancelling.
    """
    channels, count = rows.shape
    shift, total = mean[:, None].astype(rows.dtype), np.zeros(channels)
    step = max(1, _AT_ONCE // channels)
    for start in range(0, count, step):
        centred = rows[:, start : start + step] - shift
        total += np.einsum("ij,ij->i", centred, centred, dtype=np.float64)
    return total / count
