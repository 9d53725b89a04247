"""Dynamic programme over the layers whose option the relaxation leaves open (one resource).

A state is a partial choice, held as its cost and weight relative to the base choice of the relaxation. A
stage offers the open options of one layer. A state lives while no lighter one is as cheap, its reduced cost
is below the gap, and the relaxation of the stages to come can still bring it below the best choice known.

Source: Pisinger (1995), A minimal algorithm for the multiple-choice knapsack problem.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from lampq.core.allocating.hull import lower_hull
from lampq.core.allocating.knapsack import undominated
from lampq.core.values.solution import Stop
from lampq.solvers.backtrack import options_taken
from lampq.solvers.open_options import OpenOptions

# Work is counted in states made. A stage may use an eighth of what is left, but always a few; each state kept
# costs 8 bytes of back-pointers.
_WORK = 1 << 25
_NARROW = 1 << 13
# States made per second on a slow machine, to keep a stage within the time that is left.
_SPEED = 1 << 22
# Past this much work a proof to a tenth of the tolerance is enough.
_EASY = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Improvement:
    """What the search found.

    Attributes:
        cells: Flat positions to set in the base choice, or None where nothing better was found.
        bound: No choice costs less than this, relative to the base choice; +inf where the search was
            complete.
        stop: Why it stopped.
    """

    cells: np.ndarray | None
    bound: float
    stop: Stop


class _Rest:
    """Linear relaxation of the stages from a given one on, as a function of the capacity they get."""

    def __init__(self, options: OpenOptions) -> None:
        stages = len(options.start) - 1
        size = np.diff(options.start)
        stage = np.repeat(np.arange(stages), size)
        column = np.arange(len(stage)) - options.start[stage] + 1
        cost = np.full((stages, int(size.max()) + 1), np.inf)
        weight = np.zeros(cost.shape, dtype=np.int64)
        cost[:, 0] = 0.0
        cost[stage, column], weight[stage, column] = options.cost, options.weight
        hull = lower_hull(cost, weight)
        lightest = hull.option[hull.first]
        rows = np.arange(stages)
        self._floor_weight = np.append(np.cumsum(weight[rows, lightest][::-1])[::-1], 0)
        self._floor_cost = np.append(np.cumsum(cost[rows, lightest][::-1])[::-1], 0.0)
        order = np.argsort(-hull.rate)
        self._stage = hull.row[hull.step[order]]
        self._weight = hull.step_weight[order]
        self._cost = hull.rate[order] * self._weight

    def bound(self, stage: int, capacity: np.ndarray) -> np.ndarray:
        """Least cost of the stages from `stage` on within `capacity`, shape (S,); +inf where nothing fits."""
        later = self._stage >= stage
        weight = np.concatenate(([0], np.cumsum(self._weight[later]))) + self._floor_weight[stage]
        cost = self._floor_cost[stage] - np.concatenate(([0.0], np.cumsum(self._cost[later])))
        return np.where(capacity < weight[0], np.inf, np.interp(capacity, weight, cost))


class _Singles:
    """Completions of a state by one further option."""

    def __init__(self, options: OpenOptions) -> None:
        self._order = np.argsort(options.weight, kind="stable")
        self._weight = options.weight[self._order]
        self._cost = options.cost[self._order]

    def best(self, first: int, capacity: np.ndarray, cost: np.ndarray) -> tuple[float, int, int] | None:
        """The least cost of a state and one option from `first` on that fits, with state and option."""
        later = np.flatnonzero(self._order >= first)
        if not len(later):
            return None
        least = np.minimum.accumulate(self._cost[later])
        lighter = np.searchsorted(self._weight[later], capacity, side="right")
        total = np.where(lighter > 0, cost + least[lighter - 1], np.inf)
        state = int(np.argmin(total))
        if not lighter[state]:
            return None
        option = later[int(np.argmin(self._cost[later[: lighter[state]]]))]
        return float(total[state]), state, int(self._order[option])


def search(
    options: OpenOptions,
    *,
    slack: int,
    rate: float,
    best: float,
    rounding: float,
    enough: float,
    deadline: float | None,
) -> Improvement:
    """Find the cheapest combination of open options that weighs at most `slack`.

    Args:
        options: The stages.
        slack: Capacity the base choice leaves.
        rate: Multiplier of the relaxation; -rate * slack bounds the cost of every combination.
        best: Cost of the best choice known; only cheaper ones are looked for.
        rounding: Differences of cost below this are no differences.
        enough: A distance to the bound that counts as proof once the search has become long.
        deadline: `time.perf_counter()` at which to stop.
    """
    stages = len(options.start) - 1
    rest, singles = _Rest(options), _Singles(options)
    lower = -rate * slack
    weight, cost = np.zeros(1, dtype=np.int64), np.zeros(1)
    promise = np.array([lower])
    parents: list[np.ndarray] = []
    decisions: list[np.ndarray] = []
    goal: tuple[int, int, int, int] | None = None
    dropped, work, stop = math.inf, 0, Stop.FINISHED
    for stage in range(stages):
        gap = best - rounding - lower
        begin, end = options.start[stage], options.start[stage + 1]
        offer = begin + np.flatnonzero(options.reduced[begin:end] < gap)
        if not len(offer):
            # Stages are sorted by their least reduced cost, so none of the later ones has an offer either.
            break
        seconds = math.inf if deadline is None else deadline - time.perf_counter()
        proven = work > _EASY and best - min(dropped, float(promise.min())) <= enough
        if seconds <= 0 or proven:
            dropped = min(dropped, float(promise.min()))
            stop = Stop.WORK_LIMIT if proven else Stop.TIME_LIMIT
            break
        # The first row keeps the base option. Rows are sorted runs, which the stable sort below merges.
        reduced = np.concatenate(([0.0], options.reduced[offer]))[:, None] + (cost + rate * weight)
        which, state = np.nonzero(reduced < gap)
        option = np.concatenate(([-1], offer))[which]
        new_weight = weight[state] + np.where(which > 0, options.weight[option], 0)
        new_cost = cost[state] + np.where(which > 0, options.cost[option], 0.0)
        alive = undominated(new_weight, new_cost)
        weight, cost, state, option = new_weight[alive], new_cost[alive], state[alive], option[alive]

        # Cost falls as weight rises, so the heaviest state that fits is the cheapest.
        fitting = int(np.searchsorted(weight, slack, side="right"))
        if fitting and cost[fitting - 1] < best:
            best, goal = (
                float(cost[fitting - 1]),
                (stage, int(state[fitting - 1]), int(option[fitting - 1]), -1),
            )
        single = singles.best(int(end), slack - weight, cost)
        if single is not None and single[0] < best:
            best, goal = single[0], (stage, int(state[single[1]]), int(option[single[1]]), single[2])

        promise = cost + rest.bound(stage + 1, slack - weight)
        alive = np.flatnonzero(promise < best - rounding)
        work += len(which)
        fan = 1 + int(np.diff(options.start[stage + 1 : stage + 3]).sum())
        width = max(_NARROW, int(min((_WORK - work) / 8, seconds * _SPEED))) // fan
        if len(alive) > width:
            by_promise = alive[np.argpartition(promise[alive], width)]
            dropped = min(dropped, float(promise[by_promise[width:]].min()))
            alive = np.sort(by_promise[:width])
        if not len(alive):
            break
        weight, cost, promise = weight[alive], cost[alive], promise[alive]
        parents.append(state[alive].astype(np.int32))
        decisions.append(option[alive].astype(np.int32))
    cells = None if goal is None else _cells(options, options_taken(parents, decisions, goal))
    if dropped >= best - rounding:
        return Improvement(cells=cells, bound=math.inf, stop=Stop.FINISHED)
    return Improvement(cells=cells, bound=dropped, stop=Stop.WORK_LIMIT if stop is Stop.FINISHED else stop)


def _cells(options: OpenOptions, decisions: np.ndarray) -> np.ndarray:
    """The cells that options set."""
    parts = [
        options.cells[options.cell_start[c] : options.cell_start[c] + options.cell_count[c]]
        for c in decisions
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
