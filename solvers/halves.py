"""Search over open options under several resources that meets in the middle.

The layers are dealt out to two halves, and each half lists its partial choices of reduced cost below a gap. Two of them
together cost the bound, both their reduced costs, and what they leave of the resources at the price of the multipliers.
So those below the ceiling leave next to nothing of what is dear: a partial choice of one half meets only those of the
other within a narrow window of weight, and a few thousand choices a half stand for millions together.

Source of the halves: Horowitz and Sahni (1974), doi:10.1145/321812.321823.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from lampq.core.values.solution import Stop
from lampq.solvers.backtrack import options_taken
from lampq.solvers.breadth import Found, Stages

# Pairs that are looked at together, and in all.
_PAIRS, _MOST_PAIRS = 1 << 16, 1 << 22
# Of the largest weight, what sums in double precision may be off.
_ROUNDING = 1e-12


def search(
    stages: Stages,
    multipliers: np.ndarray,
    *,
    ceiling: float,
    most: int,
    deadline: float | None,
) -> Found:
    """Find the cheapest combination of open options that keeps every limit and costs less than `ceiling`.

    Args:
        stages: The open options.
        multipliers: Those of `stages.reduced`, shape (R,), >= 0.
        ceiling: Relative to the base choice; finite or +inf.
        most: Partial choices that a half may list: the gap shrinks to what they cover in full.
        deadline: `time.perf_counter()` at which to stop.
    """
    lower = -float(multipliers @ stages.slack)
    gap = ceiling - lower
    halves = (_Half(len(stages.slack)), _Half(len(stages.slack)))
    for stage in range(len(stages.start) - 1):
        gap = halves[stage % 2].extend(stages, stage, gap, most)
    meeting = _Meeting(*halves, stages.slack, multipliers, gap)
    complete = meeting.run(ceiling, deadline)
    cells = None
    if meeting.pair is not None:
        options = [half.options(state) for half, state in zip(halves, meeting.pair, strict=True)]
        cells = stages.cell[np.concatenate(options)]
    covered = lower + gap if complete else lower
    late = deadline is not None and time.perf_counter() >= deadline
    return Found(
        cells=cells,
        bound=min(meeting.best, covered),
        stop=Stop.FINISHED if covered >= meeting.best else Stop.TIME_LIMIT if late else Stop.WORK_LIMIT,
        work=meeting.work,
    )


class _Half:
    """Partial choices of some stages, complete below a gap.

    Args:
        resources: Number R.

    Attributes:
        weight: Int64, shape (R, S).
        cost: Shape (S,).
        reduced: The same.
    """

    def __init__(self, resources: int) -> None:
        self.weight = np.zeros((resources, 1), dtype=np.int64)
        self.cost, self.reduced = np.zeros(1), np.zeros(1)
        self._parents: list[np.ndarray] = []
        self._added: list[np.ndarray] = []

    def extend(self, stages: Stages, stage: int, gap: float, most: int) -> float:
        """Add the options of a stage, or none of them, and return the gap below which all choices are listed still."""
        begin, end = stages.start[stage], stages.start[stage + 1]
        offer = begin + np.flatnonzero(stages.reduced[begin:end] < gap)
        total = np.concatenate(([0.0], stages.reduced[offer]))[:, None] + self.reduced
        if (total < gap).sum() > most:
            gap = float(np.partition(total.ravel(), most)[most])
        which, state = np.nonzero(total < gap)
        option = np.concatenate(([-1], offer))[which]
        self.reduced = total[which, state]
        self.weight = self.weight[:, state] + np.where(which > 0, stages.weight[:, option], 0)
        self.cost = self.cost[state] + np.where(which > 0, stages.cost[option], 0.0)
        self._parents.append(state.astype(np.int32))
        self._added.append(option.astype(np.int32))
        return gap

    def options(self, state: int) -> np.ndarray:
        """The options of a choice."""
        return options_taken(self._parents, self._added, (len(self._parents), state, -1, -1))


class _Meeting:
    """The pairs of two halves that may lie below a ceiling.

    Args:
        left: One half.
        right: The other.
        slack: What the base choice leaves of each resource, shape (R,).
        multipliers: Shape (R,).
        gap: Of both halves.

    Attributes:
        best: Least cost so far, or the ceiling.
        pair: Where it is in both halves; None without one.
        work: Pairs looked at.
    """

    def __init__(
        self, left: _Half, right: _Half, slack: np.ndarray, multipliers: np.ndarray, gap: float
    ) -> None:
        self._left, self._right, self._slack = left, right, slack
        self.best, self.work = np.inf, 0
        self.pair: tuple[int, int] | None = None
        self._order, self._from, self._until = min(
            self._windows(multipliers, gap), key=lambda window: int((window[2] - window[1]).sum())
        )

    def _windows(
        self, multipliers: np.ndarray, gap: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The right half in an order, and what each left choice meets of it: by any one resource, and by all."""
        left, right = self._left, self._right
        room = np.maximum(gap - left.reduced, 0)
        for price in (*np.diag(multipliers), multipliers):
            mine, others, slack = price @ left.weight, price @ right.weight, float(price @ self._slack)
            order = np.argsort(others)
            error = _ROUNDING * (np.abs(mine).max(initial=0) + np.abs(others).max(initial=0) + abs(slack))
            top = np.searchsorted(others[order], slack - mine + error, side="right")
            bottom = np.searchsorted(others[order], slack - mine - room - error, side="left")
            yield order, bottom, np.maximum(top, bottom)

    def run(self, ceiling: float, deadline: float | None) -> bool:
        """Look at all of them, or as many as work and time allow; whether that was all."""
        self.best = ceiling
        ends = np.cumsum(self._until - self._from)
        begin = 0
        while begin < len(ends):
            if self.work > _MOST_PAIRS or (deadline is not None and time.perf_counter() >= deadline):
                return False
            end = max(begin + 1, int(np.searchsorted(ends, self.work + _PAIRS)))
            self._look(np.arange(begin, min(end, len(ends))))
            self.work = int(ends[min(end, len(ends)) - 1])
            begin = end
        return True

    def _look(self, states: np.ndarray) -> None:
        """Pairs of some left states with those in their windows."""
        count = (self._until - self._from)[states]
        left = np.repeat(states, count)
        within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
        right = self._order[self._from[left] + within]
        cost = self._left.cost[left] + self._right.cost[right]
        hopeful = np.flatnonzero(cost < self.best)
        left, right, cost = left[hopeful], right[hopeful], cost[hopeful]
        weight = self._left.weight[:, left] + self._right.weight[:, right]
        cost = np.where((weight <= self._slack[:, None]).all(axis=0), cost, np.inf)
        if len(cost) and cost.min() < self.best:
            place = int(np.argmin(cost))
            self.best, self.pair = float(cost[place]), (int(left[place]), int(right[place]))
