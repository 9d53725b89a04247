"""Exact minimum of a multiple-choice knapsack with one resource, in NumPy.

The linear relaxation gives a choice, a multiplier and a bound. An option whose reduced cost (cost +
multiplier * weight, above the least of its layer) reaches the gap between the bound and the best choice known
cannot improve on it; that leaves a handful of options, and a dynamic programme settles those. Sizes may be
any integers: nothing is indexed by weight.
"""

from __future__ import annotations

import numpy as np

from lampq.core.allocating.hull import lower_hull, relax
from lampq.core.values.solution import PROOF_TOLERANCE, Stop
from lampq.solvers.dynamic import search
from lampq.solvers.minimum import ROUNDING, Minimum
from lampq.solvers.open_options import open_options


def minimise(
    cost: np.ndarray, weight: np.ndarray, capacity: int, *, deadline: float | None = None
) -> Minimum:
    """The cheapest choice of one option per layer whose weights sum to at most `capacity`.

    Args:
        cost: Shape (L, J), >= 0, +inf where not allowed; at least one finite per layer.
        weight: Shape (L, J), int64, >= 0.
        capacity: Integer.
        deadline: `time.perf_counter()` at which to stop with what there is.

    >>> best = minimise(np.array([[5.0, 1.0], [4.0, 2.0]]), np.array([[1, 2], [1, 2]]), 3)
    >>> best.choice.tolist(), best.bound
    ([1, 0], 5.0)
    """
    layers = np.arange(len(cost))
    while True:
        relaxed = relax(lower_hull(cost, weight), weight, capacity)
        if relaxed is None:
            return Minimum(choice=None, bound=np.inf, stop=Stop.FINISHED)
        base = relaxed.base
        base_cost = cost[layers, base]
        if relaxed.tight:
            return Minimum(choice=base, bound=float(base_cost.sum()), stop=Stop.FINISHED)
        # From here on costs and weights are relative to the base choice.
        dearer = cost - base_cost[:, None]
        heavier = weight - weight[layers, base][:, None]
        # The best change of a single layer fills some of the slack.
        layer, option = divmod(
            int(np.argmin(np.where(heavier <= relaxed.slack, dearer, np.inf))), cost.shape[1]
        )
        choice = base.copy()
        choice[layer] = option
        upper = float(cost[layers, choice].sum())
        # No better choice holds an option that alone costs more. Without such options every rounding error is
        # small relative to the optimum, however disastrous the worst options are.
        hopeless = (cost > upper * (1 + ROUNDING)) & np.isfinite(cost)
        if not hopeless[layers, base].any():
            break
        cost = np.where(hopeless, np.inf, cost)
    best = float(dearer[layer, option])
    lower = -relaxed.rate * relaxed.slack
    reduced = dearer + relaxed.rate * heavier
    reduced[layers, base] = np.inf
    rounding = ROUNDING * upper
    options = open_options(dearer, heavier, reduced, best - rounding - lower)
    if not len(options.cost):
        return Minimum(choice=choice, bound=upper, stop=Stop.FINISHED)
    result = search(
        options,
        slack=relaxed.slack,
        rate=relaxed.rate,
        best=best,
        rounding=rounding,
        enough=0.1 * PROOF_TOLERANCE * upper,
        deadline=deadline,
    )
    if result.cells is not None:
        choice = base.copy()
        choice[result.cells // cost.shape[1]] = result.cells % cost.shape[1]
    bound = float(cost[layers, choice].sum())
    if result.bound < np.inf:
        bound = min(bound, float(base_cost.sum()) + result.bound)
    return Minimum(choice=choice, bound=bound, stop=result.stop)
