"""The linear relaxation of a multiple-choice knapsack with one resource, solved along lower convex hulls.

Source: Sinha and Zoltners (1979), The multiple-choice knapsack problem; Dyer (1984) and Zemel (1984) for the
greedy solution of the relaxation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hull:
    """The lower convex hulls of the options of all layers, as flat arrays.

    Attributes:
        row: Layer of each vertex, shape (V,), ascending.
        option: Option of each vertex; within a layer the weight rises and the cost falls.
        first: Position of the first vertex of each layer, shape (L,).
        step: Positions of the vertices that are no layer's first, shape (S,), ascending.
        rate: Cost saved per weight on the way to each of `step` from the vertex before it, > 0; falls in a
            layer.
        step_weight: Weight added on that way, shape (S,), > 0.
    """

    row: np.ndarray
    option: np.ndarray
    first: np.ndarray
    step: np.ndarray
    rate: np.ndarray
    step_weight: np.ndarray


def lower_hull(cost: np.ndarray, weight: np.ndarray) -> Hull:
    """Hull vertices of every layer.

    Args:
        cost: Shape (L, J), +inf where not allowed; at least one finite per layer.
        weight: Shape (L, J), int64, >= 0.
    """
    options = cost.shape[1]
    order = None
    rising = (weight[:, 1:] > weight[:, :-1]).all(axis=1)
    if not rising.all():
        order = np.broadcast_to(np.arange(options), cost.shape).copy()
        unsorted = np.flatnonzero(~rising)
        # By weight, and by cost among equal weights.
        order[unsorted] = np.lexsort((cost[unsorted], weight[unsorted]))
        cost = np.take_along_axis(cost, order, axis=1)
        weight = np.take_along_axis(weight, order, axis=1)
    keep = np.isfinite(cost)
    if options > 1:
        # An option is dominated unless it is cheaper than every lighter one.
        keep[:, 1:] &= cost[:, 1:] < np.minimum.accumulate(cost, axis=1)[:, :-1]
    point = np.flatnonzero(keep)
    point_cost, point_weight = cost.ravel()[point], weight.ravel()[point]
    row = point // options
    while True:
        inner = row[1:] == row[:-1]
        rise = np.diff(point_weight)
        # The first point of a layer is given a rise of one and a rate that keeps it.
        rate = np.where(inner, -np.diff(point_cost) / np.where(inner, rise, 1), np.inf)
        # A point on or above the chord of its neighbours is no vertex, whatever happens to the neighbours.
        bent = inner[:-1] & inner[1:] & (rate[:-1] <= rate[1:])
        if not bent.any():
            break
        corners = np.ones(len(point), dtype=bool)
        corners[1:-1] = ~bent
        point, row = point[corners], row[corners]
        point_cost, point_weight = point_cost[corners], point_weight[corners]
    step = np.flatnonzero(inner) + 1
    first = np.concatenate(([0], np.flatnonzero(~inner) + 1))[: len(cost)]
    option = point % options if order is None else order.ravel()[point]
    return Hull(
        row=row, option=option, first=first, step=step, rate=rate[step - 1], step_weight=rise[step - 1]
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relaxation:
    """The solution of the linear relaxation, rounded down to whole options.

    Attributes:
        base: Option per layer, shape (L,): a cheapest choice of cost + rate * weight, within the capacity.
        slack: Capacity that `base` leaves, >= 0.
        rate: The multiplier: cost saved per further unit of capacity, >= 0.
        tight: No choice is cheaper than `base`.
    """

    base: np.ndarray
    slack: int
    rate: float
    tight: bool


def relax(hull: Hull, weight: np.ndarray, capacity: int) -> Relaxation | None:
    """Fill the capacity with the steps that save most per weight; None if not even the lightest fit."""
    layers = np.arange(len(hull.first))
    floor = int(weight[layers, hull.option[hull.first]].sum())
    if floor > capacity:
        return None
    order = np.argsort(-hull.rate)
    filled = np.cumsum(hull.step_weight[order])
    count = int(np.searchsorted(filled, capacity - floor, side="right"))
    steps = np.bincount(hull.row[hull.step[order[:count]]], minlength=len(layers))
    used = int(filled[count - 1]) if count else 0
    tight = count == len(order)
    slack = capacity - floor - used
    return Relaxation(
        base=hull.option[hull.first + steps],
        slack=slack,
        rate=0.0 if tight else float(hull.rate[order[count]]),
        tight=tight or slack == 0,
    )
