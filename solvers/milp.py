"""A problem as a mixed-integer linear programme, and its answer back as a choice. Shared by the MILP solvers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lampq.core.solution import Stop
from lampq.solvers.minimum import Minimum
from lampq.solvers.normal_form import NormalForm, trivial

# The solvers meet rows, and prove bounds, to about this much on rows and costs of up to a thousand.
TOLERANCE = 1e-6
_ROW_TOP = 1000.0
_TIGHTENINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Programme:
    """Minimise cost . x over binary x with one x per layer and rows . x <= tops.

    Attributes:
        layer: Layer of each variable, shape (N,), ascending; options that are not allowed have none.
        option: Option of each variable, shape (N,).
        cost: Shape (N,).
        rows: Shape (R, N), float64, scaled so that the largest entry of a row is a thousand.
        tops: Shape (R,).
        layers: Number of layers.
    """

    layer: np.ndarray
    option: np.ndarray
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


def seconds_left(start: float, time_limit_s: float | None) -> Callable[[], float | None]:
    """Tells how much of a time limit is left, None if there is none; `start` is a `time.perf_counter()`."""
    return lambda: None if time_limit_s is None else max(0.0, start + time_limit_s - time.perf_counter())


def minimise_with(
    form: NormalForm, run: Callable[[Programme, float | None], Answer], left: Callable[[], float | None]
) -> Minimum:
    """Solve a problem with a MILP solver and make its answer exact.

    A variable of 0.9999999 times a size of a gigabyte may hide kilobytes: rounded, the choice then breaks a limit
    that the solver believes to be kept. The limit is tightened by the excess and the programme solved again; the
    bound stays that of the first run, so the answer claims no more than it has.

    Args:
        form: The problem.
        run: The solver: programme and seconds left to answer.
        left: Tells the seconds left.
    """
    if (minimum := trivial(form)) is not None:
        return minimum
    capacities = np.array(form.capacities, dtype=np.int64)
    layers = np.arange(len(form.cost))
    bound: float | None = None
    for _ in range(1 + _TIGHTENINGS):
        programme = _programme(form, capacities)
        answer = run(programme, left())
        bound = answer.bound if bound is None else bound
        if answer.values is None:
            first = capacities.tolist() == list(form.capacities)
            if answer.stop is Stop.FINISHED and not first:
                return Minimum(choice=None, bound=bound, stop=Stop.WORK_LIMIT)
            return Minimum(
                choice=None,
                bound=np.inf if answer.stop is Stop.FINISHED else max(bound, 0.0),
                stop=answer.stop,
            )
        choice = _choice(programme, answer.values)
        used = form.weights[:, layers, choice].sum(axis=1)
        excess = used - np.array(form.capacities, dtype=np.int64)
        if (excess <= 0).all():
            objective = float(form.cost[layers, choice].sum())
            return _settled(choice, objective, bound, answer.stop)
        capacities = capacities - np.maximum(excess, 0)
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
    scale = _ROW_TOP / np.maximum(rows.max(axis=1, initial=1.0), 1.0)
    return Programme(
        layer=layer,
        option=option,
        cost=form.cost[layer, option],
        rows=rows * scale[:, None],
        tops=capacities * scale,
        layers=len(form.cost),
    )


def _choice(programme: Programme, values: np.ndarray) -> np.ndarray:
    """The option with the largest value of each layer, shape (L,)."""
    order = np.lexsort((-values, programme.layer))
    first = np.searchsorted(programme.layer[order], np.arange(programme.layers))
    return programme.option[order][first]
