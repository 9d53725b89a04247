"""HiGHS, through SciPy."""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from lampq.core.values.errors import SolverError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution, Stop
from lampq.solvers.milp import Answer, Programme, solve_with
from lampq.solvers.quiet import quiet_stdout

NAME = "scipy"

# OptimizeResult.status of scipy.optimize.milp. 2 also stands for a model error, and 4 for "unbounded or
# infeasible", which for binary variables means infeasible; the message tells.
STATUS_MAP = {0: Stop.FINISHED, 1: Stop.TIME_LIMIT, 2: Stop.FAILED, 3: Stop.FAILED, 4: Stop.FAILED}
_GAP = 1e-10


def solve(problem: Problem, *, time_limit_s: float | None = None) -> Solution:
    """Minimise the damage under any number of resources.

    Args:
        problem: Without ties and pins.
        time_limit_s: Seconds after which HiGHS stops with what it has.

    Raises:
        SolverError: The problem has ties or pins, or HiGHS failed.
    """
    return solve_with(problem, _run, solver=NAME, time_limit_s=time_limit_s)


def _run(programme: Programme, time_limit_s: float | None) -> Answer:
    count = len(programme.cost)
    one = coo_array(
        (np.ones(count), (programme.layer, np.arange(count))), shape=(programme.layers, count)
    ).tocsr()
    constraints = [LinearConstraint(one, 1, 1)]
    if len(programme.rows):
        constraints.append(LinearConstraint(programme.rows, -np.inf, programme.tops))
    options = {"disp": False, "mip_rel_gap": _GAP}
    if time_limit_s is not None:
        options["time_limit"] = time_limit_s
    # HiGHS prints some of its warnings whatever it is told.
    with quiet_stdout():
        result = milp(
            programme.cost,
            integrality=np.ones(count),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options=options,
        )
    stop = STATUS_MAP[result.status]
    if stop is Stop.FAILED:
        if "infeasible" in result.message.lower():
            return Answer(values=None, bound=np.inf, stop=Stop.FINISHED)
        raise SolverError(f"scipy (HiGHS) failed: {' '.join(str(result.message).split())}")
    bound = result.mip_dual_bound
    return Answer(values=result.x, bound=-np.inf if bound is None else float(bound), stop=stop)
