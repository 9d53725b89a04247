"""Breadth-first search over open options under several resources, below a ceiling.

As in `dynamic`, a state is a partial choice relative to the base choice, a stage offers the open options of
one layer, and the states of a stage are arrays. With several resources few states dominate each other, so the
pruning rests on bounds: each vector of multipliers bounds every state by a product.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from lampq.core.values.solution import Stop
from lampq.solvers.backtrack import options_taken

# States made per second on a slow machine, to keep a stage within the time that is left.
_SPEED = 1 << 21
_NARROW = 1 << 12
# The most promising states, against which all others are tested for dominance and completed by one option.
_LEADERS = 32
_COMPLETIONS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stages:
    """Open options by stage, relative to the base choice.

    Attributes:
        start: Options of stage k are start[k] : start[k + 1], shape (K + 1,).
        cost: Shape (C,).
        weight: Shape (R, C), int64.
        reduced: Cost at the main multipliers, >= 0, shape (C,); stages are sorted by their least.
        cell: Flat position (layer * J + option), shape (C,).
        slack: What the base choice leaves of each resource, shape (R,); negative where it exceeds the limit.
    """

    start: np.ndarray
    cost: np.ndarray
    weight: np.ndarray
    reduced: np.ndarray
    cell: np.ndarray
    slack: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a search below a ceiling found.

    Attributes:
        cells: Flat positions to set in the base choice; None where nothing lies below the ceiling.
        bound: Nothing cheaper than this exists, relative to the base choice; the ceiling or the cost found
            where the search was complete.
        stop: FINISHED where it was complete.
        work: States made.
    """

    cells: np.ndarray | None
    bound: float
    stop: Stop
    work: int


def stages(
    cost: np.ndarray, weight: np.ndarray, reduced: np.ndarray, slack: np.ndarray, gap: float
) -> Stages:
    """Collect the options with a reduced cost below `gap`.

    Args:
        cost: Relative to the base choice, shape (L, J).
        weight: The same, shape (R, L, J).
        reduced: Shape (L, J), +inf at the base choice.
        slack: Shape (R,).
        gap: Ceiling minus bound.
    """
    cell = np.flatnonzero(reduced < gap)
    layer, stage = np.unique(cell // cost.shape[1], return_inverse=True)
    least = np.full(len(layer), np.inf)
    np.minimum.at(least, stage, reduced.ravel()[cell])
    rank = np.empty(len(layer), dtype=np.int64)
    rank[np.argsort(least, kind="stable")] = np.arange(len(layer))
    order = np.argsort(rank[stage], kind="stable")
    cell = cell[order]
    return Stages(
        start=np.searchsorted(rank[stage][order], np.arange(len(layer) + 1)),
        cost=cost.ravel()[cell],
        weight=weight.reshape(len(weight), -1)[:, cell],
        reduced=reduced.ravel()[cell],
        cell=cell,
        slack=slack,
    )


def _least_of_rest(stages: Stages, value: np.ndarray) -> np.ndarray:
    """Sum over the stages from k on of their least value, base option (zero) included, shape (..., K + 1)."""
    count = len(stages.start) - 1
    if count == 0:
        return np.zeros((*value.shape[:-1], 1), dtype=value.dtype)
    least = np.minimum(np.minimum.reduceat(value, stages.start[:-1], axis=-1), 0)
    total = np.cumsum(least[..., ::-1], axis=-1)[..., ::-1]
    return np.concatenate((total, np.zeros((*value.shape[:-1], 1), dtype=value.dtype)), axis=-1)


def search(
    stages: Stages,
    multipliers: np.ndarray,
    *,
    ceiling: float,
    rounding: float,
    work: int,
    deadline: float | None,
) -> Found:
    """Find the cheapest combination of open options that keeps every limit and costs less than `ceiling`.

    Args:
        stages: The open options.
        multipliers: Shape (M, R), >= 0; the first are those of `stages.reduced`.
        ceiling: Relative to the base choice; finite or +inf.
        rounding: Differences of cost below this are no differences.
        work: States to make before the least promising are set aside.
        deadline: `time.perf_counter()` at which to stop.
    """
    count = len(stages.start) - 1
    slack = stages.slack[:, None]
    floor = _least_of_rest(stages, stages.weight)
    rest = _least_of_rest(stages, stages.cost + multipliers @ stages.weight)
    lower = -float(multipliers[0] @ stages.slack)
    weight, cost = np.zeros((len(slack), 1), dtype=np.int64), np.zeros(1)
    promise = np.array([lower])
    parents: list[np.ndarray] = []
    decisions: list[np.ndarray] = []
    best, goal = ceiling, None
    if (slack >= 0).all() and best > 0:
        best, goal = 0.0, (-1, 0, -1, -1)
    dropped, made, stop = math.inf, 0, Stop.FINISHED
    for stage in range(count):
        begin, end = stages.start[stage], stages.start[stage + 1]
        gap = best - rounding - lower
        offer = begin + np.flatnonzero(stages.reduced[begin:end] < gap)
        if not len(offer):
            break
        seconds = math.inf if deadline is None else deadline - time.perf_counter()
        if seconds <= 0:
            dropped, stop = min(dropped, float(promise.min())), Stop.TIME_LIMIT
            break
        price = cost + multipliers[0] @ weight
        which, state = np.nonzero(np.concatenate(([0.0], stages.reduced[offer]))[:, None] + price < gap)
        option = np.concatenate(([-1], offer))[which]
        made += len(which)
        weight = weight[:, state] + np.where(which > 0, stages.weight[:, option], 0)
        cost = cost[state] + np.where(which > 0, stages.cost[option], 0.0)
        promise = (cost + multipliers @ (weight - slack) + rest[:, stage + 1 : stage + 2]).max(axis=0)
        alive = np.flatnonzero(
            (promise < best - rounding) & (weight + floor[:, stage + 1 : stage + 2] <= slack).all(axis=0)
        )
        weight, cost, promise = weight[:, alive], cost[alive], promise[alive]
        state, option = state[alive], option[alive]

        fitting = np.where((weight <= slack).all(axis=0), cost, np.inf)
        place = int(np.argmin(fitting)) if len(cost) else -1
        if place >= 0 and fitting[place] < best:
            best, goal = float(fitting[place]), (stage, int(state[place]), int(option[place]), -1)
        leaders = _leaders(promise)
        completion = _complete(stages, int(end), weight[:, leaders], cost[leaders])
        if completion is not None and completion[0] < best:
            place = leaders[completion[1]]
            best, goal = completion[0], (stage, int(state[place]), int(option[place]), completion[2])

        keep = np.flatnonzero((promise < best - rounding) & ~_dominated(weight, cost, leaders))
        keep = keep[_distinct(weight[:, keep], cost[keep])]
        fan = 1 + int(np.diff(stages.start[stage + 1 : stage + 3]).sum())
        width = max(min(_NARROW, work // 8), int(min((work - made) / 8, seconds * _SPEED))) // fan
        if len(keep) > width:
            by_promise = keep[np.argpartition(promise[keep], width)]
            dropped = min(dropped, float(promise[by_promise[width:]].min()))
            keep = by_promise[:width]
        weight, cost, promise = weight[:, keep], cost[keep], promise[keep]
        parents.append(state[keep].astype(np.int32))
        decisions.append(option[keep].astype(np.int32))
        if not len(keep):
            break
    cells = None if goal is None else stages.cell[options_taken(parents, decisions, goal)]
    if dropped >= best - rounding:
        return Found(cells=cells, bound=best, stop=Stop.FINISHED, work=made)
    stop = Stop.WORK_LIMIT if stop is Stop.FINISHED else stop
    return Found(cells=cells, bound=dropped, stop=stop, work=made)


def _leaders(promise: np.ndarray) -> np.ndarray:
    if len(promise) <= _LEADERS:
        return np.arange(len(promise))
    return np.argpartition(promise, _LEADERS)[:_LEADERS]


def _complete(
    stages: Stages, first: int, weight: np.ndarray, cost: np.ndarray
) -> tuple[float, int, int] | None:
    """The least cost of a state and one option from `first` on that fits, with the state and the option."""
    last = min(len(stages.cost), first + _COMPLETIONS // max(1, len(cost)))
    if first >= last or not len(cost):
        return None
    room = stages.slack[:, None] - weight
    feasible = (stages.weight[:, None, first:last] <= room[:, :, None]).all(axis=0)
    total = np.where(feasible, cost[:, None] + stages.cost[first:last], np.inf)
    state, option = divmod(int(np.argmin(total)), last - first)
    return float(total[state, option]), state, first + option


def _dominated(weight: np.ndarray, cost: np.ndarray, leaders: np.ndarray) -> np.ndarray:
    """Whether one of the leaders is nowhere worse and somewhere better than a state, shape (S,)."""
    result = np.zeros(len(cost), dtype=bool)
    for leader in leaders.tolist():
        lighter = weight[:, leader : leader + 1]
        no_worse = (lighter <= weight).all(axis=0) & (cost[leader] <= cost)
        result |= no_worse & ((lighter < weight).any(axis=0) | (cost[leader] < cost))
    return result


def _distinct(weight: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Positions of the cheapest state of each weight vector."""
    order = np.lexsort((cost, *weight))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(weight[:, order], axis=1) != 0).any(axis=0)
    return order[new]
