"""The built-in solver: NumPy alone, any number of resources."""

from __future__ import annotations

import time

from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution
from lampq.solvers.knapsack import minimise
from lampq.solvers.minimum import to_solution
from lampq.solvers.normal_form import normal_form, trivial
from lampq.solvers.several import WORK, minimise_several

NAME = "exact"


def solve(problem: Problem, *, time_limit_s: float | None = None, work: int = WORK) -> Solution:
    """Minimise the damage, with a certified bound whenever the search has to stop early.

    One resource: exact for anything that is not contrived. Several: exact for small problems, a gap for large
    ones.

    Args:
        problem: Without ties and pins.
        time_limit_s: Seconds after which the search stops with what it has. The relaxation that comes first
            takes a second or two per million layers and is not interrupted.
        work: With several resources, partial choices to make before the search stops with what it has.

    Raises:
        SolverError: The problem has ties or pins.
    """
    start = time.perf_counter()
    deadline = None if time_limit_s is None else start + time_limit_s
    form = normal_form(problem)
    minimum = trivial(form)
    if minimum is None and len(form.capacities) == 1:
        minimum = minimise(form.cost, form.weights[0], form.capacities[0], deadline=deadline)
    elif minimum is None:
        minimum = minimise_several(form.cost, form.weights, form.capacities, work=work, deadline=deadline)
    return to_solution(problem, minimum, solver=NAME, start=start)
