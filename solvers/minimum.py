"""What the built-in searches return, and how it becomes a solution."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from lampq.core.values.problem import Problem
from lampq.core.values.solution import PROOF_TOLERANCE, Solution, Status, Stop

# Relative rounding error allowed to sums of costs; smaller differences are no differences.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Minimum:
    """The best choice found and what is proven about it, in scaled costs.

    Attributes:
        choice: Option per layer, shape (L,); None where none was found, or none exists if `stop` is FINISHED.
        bound: No choice costs less; the cost of `choice` itself where that is proven optimal.
        stop: FINISHED where the search was complete.
    """

    choice: np.ndarray | None
    bound: float
    stop: Stop


def to_solution(problem: Problem, minimum: Minimum, *, solver: str, start: float) -> Solution:
    """The solution that a search amounts to; `start` is the `time.perf_counter()` at which it began."""
    objective, bound = np.inf, problem.scale * minimum.bound
    finished = minimum.stop is Stop.FINISHED
    if minimum.choice is None:
        status = Status.INFEASIBLE if finished else Status.UNKNOWN
    else:
        objective = problem.objective(minimum.choice)
        bound = min(bound, objective)
        proven = finished or objective - bound <= PROOF_TOLERANCE * objective
        status = Status.OPTIMAL if proven else Status.FEASIBLE
    return Solution(
        status=status,
        stop=minimum.stop,
        choice=minimum.choice,
        objective=objective,
        bound=bound,
        seconds=time.perf_counter() - start,
        solver=solver,
    )
