"""Multiple-choice knapsack with several resources, in NumPy: multipliers, repair, and a search below a ceiling.

The multipliers of the linear relaxation give a bound and a reduced cost per option, as with one resource. The
optimum lies above the bound by an amount nobody knows, so the search runs below a ceiling that rises step by
step: a complete search that finds nothing moves the bound up to the ceiling, and one that finds something has
found the optimum.
"""

from __future__ import annotations

import numpy as np

from lampq.core.solution import Stop
from lampq.solvers import breadth, lagrange
from lampq.solvers.knapsack import minimise
from lampq.solvers.minimum import ROUNDING, Minimum
from lampq.solvers.repair import fits, improve, repair

# The first ceiling lies above the bound by this fraction of the gap (of the bound, where no choice is known).
_FIRST, _RISE = 1 / 16, 4.0
# Further multipliers belong to capacities moved up and down by these fractions of a resource's total.
_MOVES = (0.001, 0.005, 0.02, 0.1)
# States made in all, and before further multipliers are worth their price.
WORK = 1 << 24
_EASY = 1 << 15


def minimise_several(
    cost: np.ndarray,
    weights: np.ndarray,
    capacities: tuple[int, ...],
    *,
    work: int = WORK,
    deadline: float | None = None,
) -> Minimum:
    """The cheapest choice whose weights sum to at most the capacity of every resource.

    Args:
        cost: Shape (L, J), >= 0, +inf where not allowed; at least one finite per layer.
        weights: Shape (R, L, J), int64, >= 0.
        capacities: R integers, >= 0.
        work: States to make, about two million a second, before the search stops with what there is.
        deadline: `time.perf_counter()` at which to stop with what there is.
    """
    limits = np.array(capacities)
    bound = 0.0
    for weight, capacity in zip(weights, capacities, strict=True):
        single = minimise(cost, weight, capacity, deadline=deadline)
        # A choice that is best under one limit and keeps the others is best under all.
        if single.choice is None or fits(single.choice, weights, limits):
            return single
        bound = max(bound, single.bound)

    # Resources of unit sum, so that multipliers of bits and of milliseconds are of one size.
    unit = 1.0 / weights.max(axis=2).sum(axis=1).astype(np.float64)
    scaled, scaled_limits = weights * unit[:, None, None], limits * unit
    multipliers = lagrange.best_multipliers(cost, scaled, scaled_limits)
    bound = max(bound, lagrange.bound(cost, scaled, scaled_limits, multipliers))
    worst = float(np.where(np.isfinite(cost), cost, 0.0).max(axis=1).sum())
    if bound > worst * (1 + ROUNDING):
        return Minimum(choice=None, bound=np.inf, stop=Stop.FINISHED)

    layers = np.arange(len(cost))
    priced = cost + np.tensordot(multipliers, scaled, axes=1)
    base = np.argmin(priced, axis=1)
    reduced = priced - priced[layers, base][:, None]
    choice = repair(base, reduced, weights, limits, unit)
    if choice is not None:
        choice = improve(choice, cost, weights, limits)
    reduced[layers, base] = np.inf

    # Costs and weights relative to the base choice.
    dearer = cost - cost[layers, base][:, None]
    heavier = weights - weights[:, layers, base][:, :, None]
    slack = limits - weights[:, layers, base].sum(axis=1)
    base_cost = float(cost[layers, base].sum())
    dual = base_cost - float((multipliers * unit) @ slack)
    pencil = (multipliers * unit)[None]
    best = np.inf if choice is None else float(cost[layers, choice].sum())
    rise = _FIRST * (best - bound if choice is not None else max(bound, 1e-3))
    left = work
    while True:
        rounding = ROUNDING * min(best, worst)
        ceiling = min(bound + rise, best - rounding)
        if choice is None and ceiling > worst:
            ceiling = np.inf
        open_stages = breadth.stages(dearer, heavier, reduced, slack, ceiling - dual)
        found = breadth.search(
            open_stages,
            pencil,
            ceiling=ceiling - base_cost,
            rounding=rounding,
            work=min(left, _EASY) if len(pencil) == 1 else left,
            deadline=deadline,
        )
        left -= found.work
        if found.cells is not None:
            choice = base.copy()
            choice[found.cells // cost.shape[1]] = found.cells % cost.shape[1]
            best = float(cost[layers, choice].sum())
        bound = min(best, max(bound, base_cost + found.bound))
        if found.stop is Stop.FINISHED:
            # Nothing lies between the bound and the ceiling, so a choice below or at the ceiling is optimal.
            if found.cells is not None or ceiling >= best - rounding:
                return Minimum(choice=choice, bound=best, stop=Stop.FINISHED)
        elif found.stop is Stop.TIME_LIMIT or left <= 0:
            return Minimum(choice=choice, bound=bound, stop=found.stop)
        elif len(pencil) == 1:
            pencil = _pencil(cost, scaled, scaled_limits, multipliers) * unit
            continue
        elif choice is not None:
            return Minimum(choice=choice, bound=bound, stop=found.stop)
        rise *= _RISE


def _pencil(cost: np.ndarray, weights: np.ndarray, limits: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """The multipliers themselves and those of moved capacities, shape (M, R), to bound partial choices with."""
    pencil = [multipliers]
    for resource in range(len(limits)):
        for move in _MOVES:
            for sign in (1, -1):
                moved = limits.copy()
                moved[resource] += sign * move
                pencil.append(lagrange.best_multipliers(cost, weights, moved, start=multipliers))
    return np.array(pencil)
