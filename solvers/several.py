"""Multiple-choice knapsack with several resources, in NumPy.

The multipliers of the linear relaxation give a bound and a reduced cost per option, as with one resource. The
optimum lies above the bound by an amount nobody knows, so the search runs below a ceiling that rises step by
step: a complete search that finds nothing moves the bound up to the ceiling, and one that finds something has
found the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.values.solution import Stop
from lampq.solvers import breadth, halves, lagrange
from lampq.solvers.knapsack import minimise
from lampq.solvers.minimum import ROUNDING, Minimum
from lampq.solvers.repair import fits, improve, repair

# The first ceiling lies above the bound by this fraction of the gap (of the bound, where no choice is known).
_FIRST, _RISE = 1 / 16, 4.0
# Partial choices that a half may list, in turns: each takes a few milliseconds or less, the last a tenth of a second.
_LISTS = (1 << 8, 1 << 11, 1 << 14, 1 << 17)
# Further multipliers belong to capacities moved up and down by these fractions of a resource's total.
_MOVES = (0.001, 0.005, 0.02, 0.1)
# States made in all.
WORK = 1 << 24
# Options dearer than a whole choice by this much are dropped before they spoil the precision of the rest.
_COARSE = 1e3


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
    relaxed = _relax(cost, weights, limits)
    if relaxed.bound > relaxed.worst * (1 + ROUNDING):
        return Minimum(choice=None, bound=np.inf, stop=Stop.FINISHED)
    while relaxed.worst > _COARSE * relaxed.best:
        hopeless = (cost > relaxed.best * (1 + ROUNDING)) & np.isfinite(cost)
        if not hopeless.any():
            break
        cost = np.where(hopeless, np.inf, cost)
        relaxed = _relax(cost, weights, limits)
    return _search(relaxed, max(bound, relaxed.bound), work, deadline)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Relaxed:
    """The linear relaxation and what follows from it.

    Attributes:
        cost: Shape (L, J).
        weights: Shape (R, L, J), int64.
        limits: Shape (R,), int64.
        unit: Makes each resource sum to about one, so that all multipliers are of one size, shape (R,).
        multipliers: Of the resources so scaled, shape (R,).
        bound: No choice costs less.
        worst: No choice costs more.
        base: Option per layer of least cost + multipliers . weights, shape (L,); it need not fit.
        reduced: That sum less its least, shape (L, J), >= 0.
        choice: The best choice known, shape (L,), or None.
        best: Its cost, or +inf.
    """

    cost: np.ndarray
    weights: np.ndarray
    limits: np.ndarray
    unit: np.ndarray
    multipliers: np.ndarray
    bound: float
    worst: float
    base: np.ndarray
    reduced: np.ndarray
    choice: np.ndarray | None
    best: float


def _relax(cost: np.ndarray, weights: np.ndarray, limits: np.ndarray) -> _Relaxed:
    layers = np.arange(len(cost))
    unit = 1.0 / weights.max(axis=2).sum(axis=1).astype(np.float64)
    scaled = weights * unit[:, None, None]
    multipliers = lagrange.best_multipliers(cost, scaled, limits * unit)
    priced = cost + np.tensordot(multipliers, scaled, axes=1)
    base = np.argmin(priced, axis=1)
    reduced = priced - priced[layers, base][:, None]
    choice = repair(base, reduced, weights, limits, unit)
    if choice is not None:
        choice = improve(choice, cost, weights, limits)
    return _Relaxed(
        cost=cost,
        weights=weights,
        limits=limits,
        unit=unit,
        multipliers=multipliers,
        bound=lagrange.bound(cost, scaled, limits * unit, multipliers),
        worst=float(np.where(np.isfinite(cost), cost, 0.0).max(axis=1).sum()),
        base=base,
        reduced=reduced,
        choice=choice,
        best=np.inf if choice is None else float(cost[layers, choice].sum()),
    )


def _search(relaxed: _Relaxed, bound: float, work: int, deadline: float | None) -> Minimum:
    """Longer and longer lists that meet in the middle; then a ceiling that rises until the optimum lies below it."""
    cost, base = relaxed.cost, relaxed.base
    choice, best = relaxed.choice, relaxed.best
    layers = np.arange(len(cost))
    # The search sees costs and weights relative to the base choice.
    base_cost = float(cost[layers, base].sum())
    dearer = cost - cost[layers, base][:, None]
    heavier = relaxed.weights - relaxed.weights[:, layers, base][:, :, None]
    slack = relaxed.limits - relaxed.weights[:, layers, base].sum(axis=1)
    reduced = relaxed.reduced.copy()
    reduced[layers, base] = np.inf
    multipliers = relaxed.multipliers * relaxed.unit
    dual = base_cost - float(multipliers @ slack)
    pencil = None
    lists = [most for most in _LISTS if most <= work]
    rise = 0.0
    while True:
        rounding = ROUNDING * min(best, relaxed.worst)
        ceiling = best - rounding if lists else min(bound + rise, best - rounding)
        if choice is None and ceiling > relaxed.worst:
            ceiling = np.inf
        stages = breadth.stages(dearer, heavier, reduced, slack, ceiling - dual)
        if lists:
            outcome = halves.search(
                stages, multipliers, ceiling=ceiling - base_cost, most=lists.pop(0), deadline=deadline
            )
        else:
            # Better bounds are worth their price by now.
            pencil = _pencil(relaxed) * relaxed.unit if pencil is None else pencil
            outcome = breadth.search(
                stages,
                pencil,
                ceiling=ceiling - base_cost,
                rounding=rounding,
                work=work,
                deadline=deadline,
            )
        work -= outcome.work
        if outcome.cells is not None:
            choice = base.copy()
            choice[outcome.cells // cost.shape[1]] = outcome.cells % cost.shape[1]
            best = float(cost[layers, choice].sum())
        bound = min(best, max(bound, base_cost + outcome.bound))
        if outcome.stop is Stop.FINISHED:
            # The best below the ceiling is the optimum; if there is none, what lay at the ceiling is.
            if outcome.cells is not None or ceiling >= best - rounding:
                return Minimum(choice=choice, bound=best, stop=Stop.FINISHED)
        elif outcome.stop is Stop.TIME_LIMIT or work <= 0 or (choice is not None and pencil is not None):
            return Minimum(choice=choice, bound=bound, stop=outcome.stop)
        if not lists:
            rise = rise * _RISE or _FIRST * (best - bound if choice is not None else max(bound, _FIRST))


def _pencil(relaxed: _Relaxed) -> np.ndarray:
    """Multipliers of the capacities as they are and moved, shape (M, R), to bound partial choices with."""
    scaled, limits = relaxed.weights * relaxed.unit[:, None, None], relaxed.limits * relaxed.unit
    pencil = [relaxed.multipliers]
    for resource in range(len(limits)):
        for move in _MOVES:
            for sign in (1, -1):
                moved = limits.copy()
                moved[resource] += sign * move
                pencil.append(
                    lagrange.best_multipliers(relaxed.cost, scaled, moved, start=relaxed.multipliers)
                )
    return np.array(pencil)
