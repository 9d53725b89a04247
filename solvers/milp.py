"""A problem as a mixed-integer linear programme, and its answer as a choice. Shared by the MILP solvers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lampq.core.values.problem import Problem, unit_of
from lampq.core.values.solution import Solution, Stop
from lampq.solvers.minimum import ROUNDING, Minimum, to_solution
from lampq.solvers.normal_form import NormalForm, normal_form, trivial

# The solvers meet rows, and prove bounds, to about this much on rows and costs of up to a thousand.
TOLERANCE = 1e-6
_TOP = 1000.0
# An answer below this fraction of the largest cost is solved again with larger costs.
_COARSE, _ZOOMS = 1e-3, 4
_ATTEMPTS, _MARGIN = 4, 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Programme:
    """Minimise cost . x over binary x with one x per layer and rows . x <= tops.

    Attributes:
        layer: Layer of each variable, shape (N,), ascending; options that are not allowed have none.
        cost: Shape (N,).
        rows: Shape (R, N), float64, scaled so that the largest entry of a row is a thousand.
        tops: Shape (R,).
        layers: Number of layers.
    """

    layer: np.ndarray
    cost: np.ndarray
    rows: np.ndarray
    tops: np.ndarray
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What a MILP solver says.

    Attributes:
        values: Value of each variable, shape (N,), or None.
        bound: Its lower bound, -inf if it has none.
        stop: FINISHED where it claims to be done; without values that means infeasible.
    """

    values: np.ndarray | None
    bound: float
    stop: Stop


def solve_with(
    problem: Problem,
    run: Callable[[Programme, float | None], Answer],
    *,
    solver: str,
    time_limit_s: float | None,
) -> Solution:
    """Minimise the damage with a MILP solver.

    Args:
        problem: Without ties and pins.
        run: The solver: programme and seconds left to answer.
        solver: Its name.
        time_limit_s: Seconds after which it stops with what it has.

    Raises:
        SolverError: The problem has ties or pins, or the solver failed.
    """
    start = time.perf_counter()

    def left() -> float | None:
        return None if time_limit_s is None else max(0.0, start + time_limit_s - time.perf_counter())

    return to_solution(problem, minimise_with(normal_form(problem), run, left), solver=solver, start=start)


def minimise_with(
    form: NormalForm, run: Callable[[Programme, float | None], Answer], left: Callable[[], float | None]
) -> Minimum:
    """Solve a problem with a MILP solver and make its answer exact.

    The solvers' tolerances are absolute. Where the answer is small beside the largest cost, they are too
    coarse: the options that cost more than the whole answer are dropped, the other costs scaled up, and the
    programme solved again.

    Args:
        form: The problem.
        run: The solver: programme and seconds left to answer.
        left: Tells the seconds left.
    """
    if (minimum := trivial(form)) is not None:
        return minimum
    layers = np.arange(len(form.cost))
    cost = form.cost
    best, best_objective = Minimum(choice=None, bound=0.0, stop=Stop.WORK_LIMIT), np.inf
    for _ in range(_ZOOMS):
        top = float(cost[np.isfinite(cost)].max())
        unit = unit_of(top)
        outcome = _within_limits(replace(form, cost=cost / unit), run, left)
        outcome = replace(outcome, bound=outcome.bound * unit)
        if outcome.choice is None:
            # A rerun that ends without a choice takes nothing from the answer before it.
            return outcome if best.choice is None else best
        objective = float(form.cost[layers, outcome.choice].sum())
        if objective <= best_objective:
            best, best_objective = outcome, objective
        if best_objective == 0 or best_objective > _COARSE * top:
            break
        cost = np.where(cost > best_objective * (1 + ROUNDING), np.inf, cost)
    return best


def _within_limits(
    form: NormalForm, run: Callable[[Programme, float | None], Answer], left: Callable[[], float | None]
) -> Minimum:
    """Solve, and see to it that the rounded answer keeps every limit in exact integers.

    A variable of 0.9999999 times a size of a gigabyte may hide kilobytes: rounded, the choice then breaks a
    limit that the solver believes to be kept. The limit is tightened by the excess and the programme solved
    again; the bound stays that of the first run, so the answer claims no more than it has.
    """
    limits = np.array(form.capacities, dtype=np.int64)
    layers = np.arange(len(form.cost))
    capacities, bound, stop = limits, -np.inf, Stop.WORK_LIMIT
    for attempt in range(_ATTEMPTS):
        answer = run(_programme(form, capacities), left())
        stop = answer.stop
        if attempt == 0:
            bound = max(answer.bound, 0.0)
        if answer.values is None:
            if stop is Stop.FINISHED:
                stop, bound = (Stop.FINISHED, np.inf) if attempt == 0 else (Stop.WORK_LIMIT, bound)
            return Minimum(choice=None, bound=bound, stop=stop)
        choice = _choice(form, answer.values)
        excess = form.weights[:, layers, choice].sum(axis=1) - limits
        if (excess <= 0).all():
            return _settled(choice, float(form.cost[layers, choice].sum()), bound, stop)
        # Sizes past 2^53 are beyond the solver's arithmetic; each attempt leaves it ten times more room.
        margin = np.maximum(excess, (limits * (_MARGIN * 10.0**attempt)).astype(np.int64) + 1)
        capacities = capacities - np.where(excess > 0, margin, 0)
    return Minimum(choice=None, bound=bound, stop=Stop.WORK_LIMIT)


def _settled(choice: np.ndarray, objective: float, bound: float, stop: Stop) -> Minimum:
    """The bound, kept below the objective it was proven against, and FINISHED only where the two meet."""
    tolerance = TOLERANCE * max(1.0, objective)
    if objective < bound <= objective + tolerance:
        bound = objective
    if stop is Stop.FINISHED and objective - bound > tolerance:
        stop = Stop.WORK_LIMIT
    return Minimum(choice=choice, bound=bound, stop=stop)


def _programme(form: NormalForm, capacities: np.ndarray) -> Programme:
    layer, option = np.nonzero(np.isfinite(form.cost))
    rows = form.weights[:, layer, option].astype(np.float64)
    scale = _TOP / np.maximum(rows.max(axis=1, initial=1.0), 1.0)
    return Programme(
        layer=layer,
        cost=form.cost[layer, option],
        rows=rows * scale[:, None],
        tops=capacities * scale,
        layers=len(form.cost),
    )


def _choice(form: NormalForm, values: np.ndarray) -> np.ndarray:
    """The option with the largest value of each layer, shape (L,)."""
    table = np.full(form.cost.shape, -np.inf)
    table[np.isfinite(form.cost)] = values
    choice: np.ndarray = np.argmax(table, axis=1)
    return choice
