"""Which directions in output space gradients are taken along, and for which samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lampq.core.values.errors import AdapterError
from lampq.core.values.fisher_kinds import EMPIRICAL, TRUE

LABELS = ("auto", "exact", "principal", "probe", "sampled", "data")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """Directions to take gradients along (`core.readouts.directions`).

    Attributes:
        labels: One of `LABELS`; `auto` is data where there is a truth, exact where that takes no more passes than
            `count`, else probes.
        count: Random vectors per sample, where they are drawn.
        seed: Seeds them.
        samples: Number of each sample in the whole data set, shape (S,): a sample draws the same vectors in whatever
            batch, shard or process it is. None counts from 0.
        truth: Labels of the data, shape (S,), or None: labels are drawn from the predictions.
    """

    labels: str = "auto"
    count: int = 1
    seed: int = 0
    samples: np.ndarray | None = None
    truth: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise AdapterError(f"labels {self.labels!r} is none of {', '.join(LABELS)}")

    @property
    def kind(self) -> str:
        """What Fisher information their squares estimate: `true` or `empirical`."""
        return TRUE if self.truth is None else EMPIRICAL

    def of(self, samples: int) -> Draws:
        """The same with a number for each of `samples` samples.

        Raises:
            AdapterError: There are numbers, of more or fewer samples.
        """
        numbers = np.arange(samples) if self.samples is None else np.asarray(self.samples)
        if numbers.shape != (samples,):
            raise AdapterError(f"{numbers.size} sample numbers for {samples} samples")
        return replace(self, samples=numbers)

    def part(self, place: slice | np.ndarray) -> Draws:
        """Those of some of the samples, which have numbers."""
        samples = None if self.samples is None else self.samples[place]
        return replace(
            self, samples=samples, truth=None if self.truth is None else np.asarray(self.truth)[place]
        )
