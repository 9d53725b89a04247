"""A linear map of columns to fewer rows, in which every row belongs to one group of samples.

Heavy entries stay as they are; the rest are folded into buckets with random signs (a count sketch with buckets of equal
size), which keeps inner products unbiased. Groups are never mixed, so that inner products can be taken group by group,
and how they scatter tells their sampling error.
"""

from __future__ import annotations

import math

import numpy as np

# Groups of samples: as many tell a variance to a fifth; and the fewest buckets that each of them gets.
_GROUPS, _BUCKETS = 64, 16


class Sketch:
    """The map, drawn once for all columns.

    Args:
        importance: How much each entry may matter, shape (size,).
        sample: Which of S samples each entry is of, shape (size,).
        rows: The most rows; fewer entries stay as they are.
        seed: Of the buckets and signs.

    Attributes:
        rows: Rows of the result, sorted by group.
        starts: Rows of group g are starts[g] : starts[g + 1].
        share: Of the samples that are in each group.
        error: Relative standard error of the squared length of a column, where groups have equal parts of it; else
            larger, as the sampling error is.
    """

    def __init__(self, importance: np.ndarray, sample: np.ndarray, rows: int, seed: int) -> None:
        self.rows = min(importance.size, rows)
        buckets = rows // 2 if importance.size > rows else 0
        samples = int(sample.max(initial=0)) + 1
        groups = min(samples, _GROUPS, max(1, buckets // _BUCKETS) if buckets else samples)
        group = (sample % groups).astype(np.uint8)
        exact = self.rows - buckets
        self._heavy = np.arange(self.rows)
        if buckets:
            self._heavy = np.argpartition(-importance, exact)[:exact].copy()
        of = np.concatenate(
            (group[self._heavy], self._fold(group, buckets, groups, np.random.default_rng(seed)))
        )
        self._order = np.argsort(of, kind="stable")
        self.starts = np.searchsorted(of[self._order], np.arange(groups + 1))
        self.share = np.bincount(np.arange(samples) % groups) / samples
        self.error = math.sqrt(2 / buckets) if buckets else 0.0

    def _fold(self, group: np.ndarray, buckets: int, groups: int, rng: np.random.Generator) -> np.ndarray:
        """Deal what is not heavy out to buckets of its own group; the group of every bucket.

        What of a bucket stays empty is some entry at sign zero.
        """
        light = np.ones(len(group), dtype=bool)
        light[self._heavy] = False
        depth = math.ceil(int(light.sum()) / (buckets - groups)) if buckets else 1
        self._tail = np.zeros((buckets, depth), dtype=np.int64)
        self._sign = np.zeros((buckets, depth), dtype=np.float32)
        of, begin = np.zeros(buckets, dtype=np.uint8), 0
        # A group at a time: outputs of detectors have millions of entries.
        for number in range(groups if buckets else 0):
            members = rng.permutation(np.flatnonzero(light & (group == number)))
            end = begin + -(-len(members) // depth)
            self._tail[begin:end].ravel()[: len(members)] = members
            signs = rng.choice(np.array([-1, 1], dtype=np.float32), len(members))
            self._sign[begin:end].ravel()[: len(members)] = signs
            of[begin:end], begin = number, end
        return of

    def __call__(self, column: np.ndarray) -> np.ndarray:
        """The rows of a column."""
        folded = (column[self._tail] * self._sign).sum(axis=1)
        return np.concatenate((column[self._heavy], folded))[self._order]
