"""The next cheaper and the next dearer choice beside a choice."""

from __future__ import annotations

import dataclasses
import time
from typing import TypeAlias

import numpy as np

from lampq.core.allocating.limits import BITS, BYTES
from lampq.core.allocating.pareto import pareto
from lampq.core.allocating.smallest import limited, smallest
from lampq.core.measuring.interaction import Interaction
from lampq.core.planning.solve import Solve
from lampq.core.searching.superposition import allocate
from lampq.core.values.errors import BudgetError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution

Beside: TypeAlias = tuple[np.ndarray | None, np.ndarray | None]
"""The cheaper and the dearer choice, each of shape (L,); None where there is none."""

# Damage must fall by more than this fraction to count as less.
_LESS = 1e-9
# Tables of more cells than this have too many sizes for a curve of all of them.
_CURVE_CELLS = 1000
# Sizes up the curve that are searched with interactions until one loses less.
_STEPS = (0, 1, 3, 7, 15)
# Seconds for each search, and for all solves that look for the dearer plan under several limits.
_SEARCH_LIMIT_S, _SOLVE_LIMIT_S = 0.2, 2.0


def by_size(problem: Problem, stored_bytes: np.ndarray) -> Problem:
    """The problem with the size as its first resource, without a limit, and all limits but those on bits and bytes.

    Size is what the budget limits: weight bits where only their average is limited, else bytes.

    Args:
        problem: L layers, J options.
        stored_bytes: Stored bytes of every option, shape (L, J).
    """
    names = problem.resource_names
    if BITS in names and BYTES not in names:
        use = problem.resources[names.index(BITS)]
    else:
        use = np.where(np.isfinite(problem.cost), stored_bytes, 0)
    others = [index for index, name in enumerate(names) if name not in (BITS, BYTES)]
    return dataclasses.replace(
        problem,
        resources=np.concatenate([use[None], problem.resources[others]]),
        limits=np.array([int(use.max(axis=1).sum()), *problem.limits[others].tolist()], dtype=np.int64),
        resource_names=("size", *(names[index] for index in others)),
    )


def next_choices(
    problem: Problem,
    choice: np.ndarray,
    *,
    interaction: Interaction | None,
    solve: Solve,
    seed: int,
) -> Beside:
    """The best smaller choice, and the smallest one that is predicted to lose less.

    Without interactions both are exact, unless several limits make that take more than two seconds; with
    interactions they are what a short search finds.

    Args:
        problem: From `by_size`.
        choice: Where to look from, shape (L,).
        interaction: Damage of whole plans, or None: it is the sum over the layers.
        solve: A solver.
        seed: Of the search with interactions.
    """
    if interaction is not None:
        return _searched(problem, interaction, choice, seed)
    if len(problem.limits) == 1 and problem.cost.size <= _CURVE_CELLS:
        return _on_curve(problem, choice)
    return _solved(problem, choice, solve)


def _on_curve(problem: Problem, choice: np.ndarray) -> Beside:
    curve = pareto(problem)
    below, above = curve.neighbours(int(problem.usage(choice)[0]))
    less = problem.objective(choice) * (1 - _LESS)
    while above is not None and above < len(curve) and curve.damages[above] >= less:
        above += 1
    return (
        None if below is None else curve.choice(below),
        None if above is None or above == len(curve) else curve.choice(above),
    )


def _solved(problem: Problem, choice: np.ndarray, solve: Solve) -> Beside:
    deadline = time.perf_counter() + _SOLVE_LIMIT_S

    def solve_in_time(trial: Problem) -> Solution:
        left = deadline - time.perf_counter()
        if left <= 0:
            raise TimeoutError
        return solve(trial, time_limit_s=left)

    size, damage = int(problem.usage(choice)[0]), problem.objective(choice)
    cheaper = dearer = None
    try:
        if size > int(problem.floors()[0]):
            cheaper = solve_in_time(limited(problem, size - 1)).choice
        dearer = smallest(problem, damage * (1 - _LESS), solve_in_time).choice
    except (BudgetError, TimeoutError):
        # Nothing loses less, or it takes too long to tell.
        pass
    return cheaper, dearer


def _searched(problem: Problem, interaction: Interaction, choice: np.ndarray, seed: int) -> Beside:
    size, less = int(problem.usage(choice)[0]), float(interaction.predict(choice)) * (1 - _LESS)
    alone = dataclasses.replace(
        problem,
        resources=problem.resources[:1],
        limits=problem.limits[:1],
        resource_names=problem.resource_names[:1],
    )
    curve = pareto(alone)
    below, above = curve.neighbours(size)

    def best_within(limit: int, start: np.ndarray) -> np.ndarray | None:
        allocation = allocate(
            interaction,
            limited(problem, limit),
            [start],
            seed=seed,
            search_limit_s=_SEARCH_LIMIT_S,
            bound_limit_s=0,
        )
        return allocation.solution.choice

    cheaper = None if below is None else best_within(size - 1, curve.choice(below))
    if above is None:
        return cheaper, None
    for step in _STEPS:
        dearer = best_within(int(curve.sizes[min(above + step, len(curve) - 1)]), choice)
        if dearer is not None and interaction.predict(dearer) < less:
            return cheaper, dearer
    return cheaper, None
