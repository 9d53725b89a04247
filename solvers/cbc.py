"""CBC, through python-mip."""

from __future__ import annotations

import itertools

import mip
import numpy as np
from mip import OptimizationStatus

from lampq.core.values.errors import SolverError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution, Stop
from lampq.solvers.milp import Answer, Programme, solve_with
from lampq.solvers.quiet import quiet_stdout

NAME = "cbc"

# What is not here is a failure: none of our problems is unbounded or cut off.
STATUS_MAP = {
    OptimizationStatus.OPTIMAL: Stop.FINISHED,
    OptimizationStatus.INFEASIBLE: Stop.FINISHED,
    OptimizationStatus.INT_INFEASIBLE: Stop.FINISHED,
    OptimizationStatus.FEASIBLE: Stop.TIME_LIMIT,
    OptimizationStatus.NO_SOLUTION_FOUND: Stop.TIME_LIMIT,
}
_GAP = 1e-10
_TOLERANCE = 1e-9


def solve(problem: Problem, *, time_limit_s: float | None = None) -> Solution:
    """Minimise the damage under any number of resources.

    Args:
        problem: Without ties and pins.
        time_limit_s: Seconds after which CBC stops with what it has.

    Raises:
        SolverError: The problem has ties or pins, or CBC failed.
    """
    return solve_with(problem, _run, solver=NAME, time_limit_s=time_limit_s)


def _run(programme: Programme, time_limit_s: float | None) -> Answer:
    with quiet_stdout():
        model = mip.Model(sense=mip.MINIMIZE, solver_name=mip.CBC)
        model.verbose = 0
        model.threads = 1
        model.max_mip_gap = _GAP
        model.max_mip_gap_abs = _GAP
        model.integer_tol = _TOLERANCE
        model.infeas_tol = _TOLERANCE
        model.opt_tol = _TOLERANCE
        chosen = [model.add_var(var_type=mip.BINARY, obj=cost) for cost in programme.cost.tolist()]
        begins = np.searchsorted(programme.layer, np.arange(programme.layers + 1)).tolist()
        for begin, end in itertools.pairwise(begins):
            model.add_constr(mip.xsum(chosen[begin:end]) == 1)
        for row, top in zip(programme.rows, programme.tops.tolist(), strict=True):
            used = np.flatnonzero(row).tolist()
            model.add_constr(mip.xsum(float(row[i]) * chosen[i] for i in used) <= top)
        status = model.optimize(**({} if time_limit_s is None else {"max_seconds": time_limit_s}))
        stop = STATUS_MAP.get(status, Stop.FAILED)
        values = np.array([v.x for v in chosen]) if model.num_solutions else None
        # Without a choice the bound that CBC reports is its largest number.
        bound = -np.inf if values is None else float(model.objective_bound)
    if stop is Stop.FAILED:
        raise SolverError(f"cbc failed: status {status.name}")
    return Answer(values=values, bound=bound, stop=stop)
