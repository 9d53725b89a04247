"""The next cheaper and the next dearer plan beside a plan."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from lampq import solvers
from lampq.core.allocating.limits import BITS, BYTES
from lampq.core.allocating.pareto import pareto
from lampq.core.allocating.smallest import limited, smallest
from lampq.core.searching.superposition import allocate
from lampq.core.values.errors import BudgetError
from lampq.core.values.plan import Neighbour
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution

if TYPE_CHECKING:
    from lampq.verbs.plan import Search

# Damage must fall by more than this fraction to count as less.
_LESS = 1e-9
# Tables of more cells than this have too many sizes for a curve of all of them.
_CURVE_CELLS = 1000
# Sizes up the curve that are searched with interactions until one loses less.
_STEPS = (0, 1, 3, 7, 15)
# Seconds for each search, and for all solves that look for the dearer plan under several limits.
_SEARCH_LIMIT_S, _SOLVE_LIMIT_S = 0.2, 2.0


def neighbours(
    search: Search, choice: np.ndarray, *, seed: int = 0
) -> tuple[Neighbour | None, Neighbour | None]:
    """The best smaller plan, and the smallest one that is predicted to lose less.

    Size is what the budget limits: weight bits where only their average is limited, else bytes. Limits on it are
    set aside, all others hold, as do pins and ties. Without interactions both plans are exact, unless several
    limits make that take more than two seconds; with interactions they are what a short search finds.

    Args:
        search: What the plan was found with.
        choice: The plan, shape (L,).
        seed: Of the search in mode superposition.

    Returns:
        The cheaper and the dearer plan; None where there is none, or where the mode predicts no damage.
    """
    if search.mode == "error":
        return None, None
    problem = _by_size(search)
    here = int(problem.usage(choice)[0])
    if search.interaction is not None:
        found = _with_interactions(search, problem, choice, here, seed)
    elif len(problem.limits) == 1 and problem.cost.size <= _CURVE_CELLS:
        curve = pareto(problem)
        below, above = curve.neighbours(here)
        less = search.predict(choice) * (1 - _LESS)
        while above is not None and above < len(curve) and curve.damages[above] >= less:
            above += 1
        found = (
            None if below is None else curve.choice(below),
            None if above is None or above == len(curve) else curve.choice(above),
        )
    else:
        found = _by_solving(problem, here, search.predict(choice))
    return _neighbour(search, found[0]), _neighbour(search, found[1])


def _by_size(search: Search) -> Problem:
    """The problem with the size as its first resource, without a limit, and all limits but those on bits and bytes."""
    problem, names = search.problem, search.problem.resource_names
    if BITS in names and BYTES not in names:
        use = problem.resources[names.index(BITS)]
    else:
        use = np.where(np.isfinite(problem.cost), search.profile.payload_bytes, 0)
    kept = [index for index, name in enumerate(names) if name not in (BITS, BYTES)]
    return dataclasses.replace(
        problem,
        resources=np.concatenate([use[None], problem.resources[kept]]),
        limits=np.array([int(use.max(axis=1).sum()), *problem.limits[kept].tolist()], dtype=np.int64),
        resource_names=("size", *(names[index] for index in kept)),
    )


def _by_solving(problem: Problem, here: int, damage: float) -> tuple[np.ndarray | None, np.ndarray | None]:
    deadline = time.perf_counter() + _SOLVE_LIMIT_S

    def solve(trial: Problem) -> Solution:
        left = deadline - time.perf_counter()
        if left <= 0:
            raise TimeoutError
        return solvers.solve(trial, time_limit_s=left)

    cheaper = dearer = None
    try:
        if here > int(problem.floors()[0]):
            cheaper = solve(limited(problem, here - 1)).choice
        dearer = smallest(problem, damage * (1 - _LESS), solve).choice
    except (BudgetError, TimeoutError):
        # Nothing loses less, or it takes too long to tell.
        pass
    return cheaper, dearer


def _with_interactions(
    search: Search, problem: Problem, choice: np.ndarray, here: int, seed: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    interaction = search.interaction
    assert interaction is not None
    less = search.predict(choice) * (1 - _LESS)
    curve = pareto(
        dataclasses.replace(
            problem,
            resources=problem.resources[:1],
            limits=problem.limits[:1],
            resource_names=problem.resource_names[:1],
        )
    )
    below, above = curve.neighbours(here)

    def best_within(limit: int, start: np.ndarray) -> np.ndarray | None:
        trial = limited(problem, limit)
        found = allocate(
            interaction, trial, [start], seed=seed, search_limit_s=_SEARCH_LIMIT_S, bound_limit_s=0
        )
        return found.solution.choice

    cheaper = None if below is None else best_within(here - 1, curve.choice(below))
    if above is None:
        return cheaper, None
    for step in _STEPS:
        dearer = best_within(int(curve.sizes[min(above + step, len(curve) - 1)]), choice)
        if dearer is not None and search.predict(dearer) < less:
            return cheaper, dearer
    return cheaper, None


def _neighbour(search: Search, choice: np.ndarray | None) -> Neighbour | None:
    if choice is None:
        return None
    profile = search.profile
    rows = np.arange(len(choice))
    return Neighbour(
        total_bytes=profile.rest_bytes + int(profile.payload_bytes[rows, choice].sum()),
        average_bits=int(profile.sizes @ profile.weight_bits[choice]) / int(profile.sizes.sum()),
        predicted_kl=search.predict(choice),
    )
