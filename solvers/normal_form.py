"""The problem every solver really works on: without resources that cannot bind, and without common parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.allocating.knapsack import lighten
from lampq.core.values.errors import SolverError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Stop
from lampq.solvers.minimum import Minimum


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormalForm:
    """Weights shifted so that each layer's lightest option weighs nothing, then divided by their gcd.

    Attributes:
        cost: Shape (L, J), as in the problem.
        weights: Shape (R, L, J), int64, >= 0; only resources that can bind.
        capacities: Shape (R,), Python integers; negative where not even the lightest options fit.
    """

    cost: np.ndarray
    weights: np.ndarray
    capacities: tuple[int, ...]


def normal_form(problem: Problem) -> NormalForm:
    """Drop what cannot bind and what all choices share. Costs, and which choices fit, stay as they are.

    Raises:
        SolverError: The problem has ties or pins; reduce it first.
    """
    if problem.ties or problem.pins:
        raise SolverError(
            "the problem has ties or pins; solve problem.reduced().problem, or call lampq.solvers.solve"
        )
    allowed = np.isfinite(problem.cost)
    weights, capacities = [], []
    for use, limit in zip(problem.resources, problem.limits.tolist(), strict=True):
        weight, least, divisor = lighten(use, allowed)
        capacity = (limit - least) // divisor
        if capacity < int(weight.max(axis=1, initial=0).sum()):
            weights.append(weight)
            capacities.append(capacity)
    return NormalForm(
        cost=problem.cost,
        weights=np.array(weights, dtype=np.int64).reshape(len(weights), *problem.cost.shape),
        capacities=tuple(capacities),
    )


def trivial(form: NormalForm) -> Minimum | None:
    """The answer where no search is needed: a limit below the lightest options, or no limit that binds."""
    if min(form.capacities, default=0) < 0:
        return Minimum(choice=None, bound=np.inf, stop=Stop.FINISHED)
    if not form.capacities:
        least = form.cost.min(axis=1)
        return Minimum(choice=np.argmin(form.cost, axis=1), bound=float(least.sum()), stop=Stop.FINISHED)
    return None
