"""Check a solver's answer against the problem, trusting nothing the solver says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lampq.core.values.errors import SolverError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import PROOF_TOLERANCE, Solution, Status

# MILP solvers meet the constraints to about 1e-6, and their objective and bound carry that error.
_CLAIM_TOLERANCE = 1e-6


def certify(problem: Problem, solution: Solution) -> Solution:
    """The same answer with the objective recomputed, and the status that objective and bound really support.

    Checks that every layer has one allowed option, ties and pins hold, every resource is within its limit in
    exact integers, the claimed objective is the true one, and the bound does not exceed it. A solution
    without a choice passes unchanged.

    Raises:
        SolverError: A check failed; the message says which, where and by how much.
    """
    choice = solution.choice
    if choice is None:
        return solution
    layers, options = problem.cost.shape
    who = solution.solver
    if choice.shape != (layers,):
        raise SolverError(f"{who}: {choice.size} options chosen for {layers} layers")
    outside = (choice < 0) | (choice >= options)
    if outside.any():
        layer = int(np.argmax(outside))
        raise SolverError(
            f"{who}: layer {problem.layer_names[layer]!r} got option {choice[layer]} of {options}"
        )
    forbidden = ~np.isfinite(problem.cost[np.arange(layers), choice])
    if forbidden.any():
        layer = int(np.argmax(forbidden))
        raise SolverError(
            f"{who}: layer {problem.layer_names[layer]!r} got option {choice[layer]}, which is not allowed"
        )
    for layer, option in problem.pins.items():
        if choice[layer] != option:
            raise SolverError(
                f"{who}: layer {problem.layer_names[layer]!r} is pinned to option {option} "
                f"but got {choice[layer]}"
            )
    for group in problem.ties:
        for layer in group[1:]:
            if choice[layer] != choice[group[0]]:
                raise SolverError(
                    f"{who}: tied layers {problem.layer_names[group[0]]!r} and "
                    f"{problem.layer_names[layer]!r} got options {choice[group[0]]} and {choice[layer]}"
                )
    for name, used, limit in zip(
        problem.resource_names, problem.usage(choice).tolist(), problem.limits.tolist(), strict=True
    ):
        if used > limit:
            raise SolverError(f"{who}: {name} is {used}, over the limit {limit} by {used - limit}")
    objective = problem.objective(choice)
    # One unit of scaled cost is the floor of the tolerance, so that an objective of zero can be met.
    tolerance = _CLAIM_TOLERANCE * max(objective, problem.scale)
    if abs(solution.objective - objective) > tolerance:
        raise SolverError(f"{who}: claims objective {solution.objective!r}, but its choice has {objective!r}")
    if solution.bound > objective + tolerance:
        raise SolverError(f"{who}: its bound {solution.bound!r} is above its own choice, {objective!r}")
    bound = min(solution.bound, objective)
    status = solution.status
    if objective - bound <= PROOF_TOLERANCE * objective:
        status = Status.OPTIMAL
    elif objective - bound > tolerance:
        status = Status.FEASIBLE
    return replace(solution, status=status, objective=objective, bound=bound)
