"""Solvers of the allocation problem, behind one door.

A solver is a module with `solve(problem, *, time_limit_s) -> Solution`; it gets a problem without ties and
pins. What it answers is certified by the core before anyone sees it.
"""

from __future__ import annotations

import importlib
import math
import time
from dataclasses import dataclass, replace
from types import ModuleType

from lampq.core.allocating.certify import certify
from lampq.core.values.errors import BudgetError, MissingExtraError, SolverError
from lampq.core.values.problem import Problem, Reduction
from lampq.core.values.solution import Solution, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What a solver is and can.

    Attributes:
        module: Where its `solve` lives; imported when first needed.
        package: The distribution it needs, and None where the base install has all.
        extra: The extra of lampq that brings the package.
        proves_several: Whether it proves large problems with several resources optimal, as a rule.
    """

    module: str
    package: str | None
    extra: str
    proves_several: bool


SOLVERS = {
    "exact": Backend(module="lampq.solvers.exact", package=None, extra="", proves_several=False),
    "scipy": Backend(module="lampq.solvers.highs", package="scipy", extra="scipy", proves_several=True),
    "cbc": Backend(module="lampq.solvers.cbc", package="mip", extra="cbc", proves_several=True),
}

# Partial choices that `auto` lets the built-in solver make before it calls a MILP solver: some 0.1 s of work.
_TRY = 1 << 17


def solve(problem: Problem, *, solver: str = "auto", time_limit_s: float | None = None) -> Solution:
    """The choice of least damage that keeps every limit, tie and pin, with a certified bound.

    Args:
        problem: What to solve.
        solver: `exact`, `scipy`, `cbc`, or `auto`: the built-in solver, and where several limits bind and it
            cannot prove its choice at once, SciPy's or else CBC if installed.
        time_limit_s: Seconds, >= 0, after which the search stops with what it has; None for no limit but the
            solver's own on work.

    Returns:
        A certified solution; without a choice if the problem is infeasible, or if time ran out before one was
        found.

    Raises:
        SolverError: No solver of that name; the solver failed; or its answer did not survive certification.
        BudgetError: The time limit is no time.
        MissingExtraError: The solver's package is not installed.

    >>> problem = Problem.build([[0.5, 0.1], [0.4, 0.2]], [[2, 4], [2, 4]], 6)
    >>> best = solve(problem)
    >>> best.choice.tolist(), best.objective, best.status.value
    ([1, 0], 0.5, 'optimal')
    """
    if time_limit_s is not None and not 0 <= time_limit_s < math.inf:
        raise BudgetError(f"time limit {time_limit_s}: must be a number of seconds, at least 0")
    if solver not in (*SOLVERS, "auto"):
        raise SolverError(f"no solver {solver!r}; there are auto, {', '.join(SOLVERS)}")
    start = time.perf_counter()
    reduction = problem.reduced()
    if solver == "auto":
        solution = _automatic(problem, reduction, time_limit_s)
    else:
        solution = _expanded(
            problem, reduction, _module(solver).solve(reduction.problem, time_limit_s=time_limit_s)
        )
    return replace(solution, seconds=time.perf_counter() - start)


def _automatic(problem: Problem, reduction: Reduction, time_limit_s: float | None) -> Solution:
    start = time.perf_counter()
    exact = _module("exact")
    first = _expanded(
        problem, reduction, exact.solve(reduction.problem, time_limit_s=time_limit_s, work=_TRY)
    )
    if first.status in (Status.OPTIMAL, Status.INFEASIBLE) or len(problem.limits) < 2:
        return first
    for name in sorted(SOLVERS, key=lambda name: not SOLVERS[name].proves_several):
        left = None if time_limit_s is None else max(0.0, start + time_limit_s - time.perf_counter())
        if left == 0:
            return first
        try:
            second = _expanded(problem, reduction, _module(name).solve(reduction.problem, time_limit_s=left))
        except (MissingExtraError, SolverError):
            # Not installed, or not to be trusted with this problem: the next one, at last the built-in one.
            continue
        return _better(first, second)
    return first


def _module(name: str) -> ModuleType:
    backend = SOLVERS[name]
    try:
        return importlib.import_module(backend.module)
    except ImportError as err:
        if backend.package is None:
            raise
        raise MissingExtraError(backend.package, backend.extra, err) from err


def _expanded(problem: Problem, reduction: Reduction, solution: Solution) -> Solution:
    """The certified solution of the original problem."""
    if solution.choice is not None:
        solution = replace(solution, choice=reduction.expand(solution.choice))
    return certify(problem, solution)


def _better(first: Solution, second: Solution) -> Solution:
    """The better choice of two solvers with the better bound of both."""
    if first.choice is None or second.status is Status.OPTIMAL:
        return second
    best = second if second.objective <= first.objective else first
    return replace(best, bound=min(best.objective, max(first.bound, second.bound)))
