"""The problem every solver really works on: free of ties, of resources that cannot bind, and of common parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.errors import SolverError
from lampq.core.problem import Problem
from lampq.core.solution import Stop
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
    every = bool(allowed.all())
    weights, capacities = [], []
    for use, limit in zip(problem.resources, problem.limits.tolist(), strict=True):
        least = use.min(axis=1) if every else np.where(allowed, use, np.iinfo(np.int64).max).min(axis=1)
        weight = use - least[:, None]
        if not every:
            weight[~allowed] = 0
        capacity = limit - int(least.sum())
        if capacity >= 0 and int(weight.max(axis=1, initial=0).sum()) <= capacity:
            continue
        divisor = _common_divisor(weight)
        weights.append(weight // divisor if divisor > 1 else weight)
        capacities.append(capacity // divisor)
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


def _common_divisor(weight: np.ndarray) -> int:
    """Greatest common divisor of all entries; at least 1."""
    values = weight.ravel()
    divisor = int(np.gcd.reduce(values[:4096])) if values.size else 1
    # A gcd is dear and a remainder cheap, and the first few entries nearly always settle it.
    if divisor == 0 or (divisor > 1 and (values % divisor).any()):
        divisor = int(np.gcd.reduce(values))
    return max(divisor, 1)
