"""The whole trade-off between what plans cost and what they are predicted to lose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lampq.core.allocating.limits import bit_operations
from lampq.core.allocating.pareto import Curve, pareto
from lampq.core.allocating.smallest import limited
from lampq.core.planning.search import Search
from lampq.core.searching.superposition import allocate
from lampq.core.values.errors import BudgetError
from lampq.core.values.option import Option
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile

# Budgets that are searched, with interactions or under several limits, and seconds for each at most.
_SEARCHED = 49
_SEARCH_LIMIT_S = 0.2
# Seconds for each optimum under several limits.
_SOLVE_LIMIT_S = 2.0

AXES: dict[str, Callable[[Profile], np.ndarray]] = {
    "bits": lambda profile: profile.code_bits,
    "bytes": lambda profile: profile.stored_bytes,
    "bops": bit_operations,
}
"""What can be swept, and how much of it each option takes, int64, shape (L, J)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One plan that no other plan beats in both what is swept and damage.

    Attributes:
        average_bits: Weight width averaged over all weights, the codes of factors of low rank counted.
        size_bytes: Bytes of the whole model.
        predicted_kl: Predicted damage, nats.
        widths: Weight width of each layer, then that of the left factor of each product.
        knee: Whether this is the knee of the curve.
        input_widths: Width of each layer's input, None for float, then that of each right factor; empty where all
            options have the same.
        ranks: Rank of each layer's factors, 0 for none; empty where no option has any.
        bops: Bit operations per sample, or None where multiply-accumulates are unknown.
    """

    average_bits: float
    size_bytes: int
    predicted_kl: float
    widths: tuple[int, ...]
    knee: bool
    input_widths: tuple[int | None, ...] = ()
    ranks: tuple[int, ...] = ()
    bops: int | None = None

    @property
    def options(self) -> tuple[Option, ...]:
        """What each layer gets, as far as options differ: inputs of one width count as float."""
        floats, none = (None,) * len(self.widths), (0,) * len(self.widths)
        places = zip(self.widths, self.input_widths or floats, self.ranks or none, strict=True)
        return tuple(Option(weight_bits=w, activation_bits=a, rank=r) for w, a, r in places)


def tradeoff(search: Search, against: str | None = None) -> tuple[Point, ...]:
    """The plans that no other beats, cheapest first.

    Args:
        search: Its limits are kept by every plan.
        against: What is swept, one of `AXES`. None: BOPs where input widths vary and multiply-accumulates are known,
            else bits.

    Raises:
        BudgetError: What is swept is unknown, or no plan that keeps all limits was found in time.
    """
    choices, costs, damages = unbeaten(search, against)
    knee = _knee(costs, damages)
    describe = _describer(search.profile)
    return tuple(describe(choices[i], float(damages[i]), i == knee) for i in range(len(choices)))


def unbeaten(search: Search, against: str | None = None) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The plans of `tradeoff`, each of shape (L,), what each takes of what is swept, and its predicted damage.

    Raises:
        BudgetError: See `tradeoff`.
    """
    problem = _swept(search, against)
    choices = _candidates(search, problem)
    costs = np.array([problem.usage(choice)[0] for choice in choices])
    damages = np.array([search.predict(choice) for choice in choices])
    best = _unbeaten(costs, damages)
    return [choices[i] for i in best.tolist()], costs[best], damages[best]


def _describer(profile: Profile) -> Callable[[np.ndarray, float, bool], Point]:
    """A function from a choice, its damage and whether it is the knee to its point.

    What all points share is worked out once: a sweep of thousands of layers has as many points.
    """
    places = np.arange(len(profile.places))
    weights, widths = int(profile.sizes.sum()), profile.weight_bits
    bits, ranks = profile.code_bits, np.array([option.rank for option in profile.options])
    inputs = np.array([option.activation_bits for option in profile.options], dtype=object)
    varied = _inputs_vary(profile)
    bops = bit_operations(profile) if _operations_known(profile) else None

    def describe(choice: np.ndarray, damage: float, knee: bool) -> Point:
        return Point(
            average_bits=int(bits[places, choice].sum()) / weights,
            size_bytes=profile.total_bytes(choice),
            predicted_kl=damage,
            widths=tuple(widths[choice].tolist()),
            knee=knee,
            input_widths=tuple(inputs[choice].tolist()) if varied else (),
            ranks=tuple(ranks[choice].tolist()) if ranks.any() else (),
            bops=None if bops is None else int(bops[places, choice].sum()),
        )

    return describe


def _inputs_vary(profile: Profile) -> bool:
    return len({option.input_bits for option in profile.options}) > 1


def _operations_known(profile: Profile) -> bool:
    return all(layer.macs is not None for layer in profile.layers)


def _swept(search: Search, against: str | None) -> Problem:
    """The problem with what is swept as its first resource, without a limit, and all limits that can bind."""
    profile, problem = search.profile, search.problem
    if against is None:
        against = "bops" if _inputs_vary(profile) and _operations_known(profile) else "bits"
    if against not in AXES:
        raise BudgetError(f"sweep against {against!r}: choose {', '.join(AXES)}")
    use = np.where(np.isfinite(problem.cost), AXES[against](profile), 0)
    most = problem.resources.max(axis=2).sum(axis=1)
    binding = np.flatnonzero(most > problem.limits)
    return dataclasses.replace(
        problem,
        resources=np.concatenate([use[None], problem.resources[binding]]),
        limits=np.array([int(use.max(axis=1).sum()), *problem.limits[binding].tolist()], dtype=np.int64),
        resource_names=("swept", *(problem.resource_names[index] for index in binding)),
    )


def _candidates(search: Search, problem: Problem) -> list[np.ndarray]:
    """Plans among which the unbeaten ones are, each of shape (L,)."""
    alone = dataclasses.replace(
        problem, resources=problem.resources[:1], limits=problem.limits[:1], resource_names=("swept",)
    )
    curve = pareto(alone)
    choices = [curve.choice(index) for index in range(len(curve))]
    if len(problem.limits) > 1:
        choices = [choice for choice in choices if (problem.usage(choice) <= problem.limits).all()]
    elif search.interaction is None:
        return choices
    for limit in np.linspace(curve.sizes[0], curve.sizes[-1], _SEARCHED).astype(np.int64).tolist():
        choices += _searched(search, limited(problem, limit), curve)
    if not choices:
        raise BudgetError("no plan that keeps all limits was found in time; relax one of them")
    return choices


def _searched(search: Search, problem: Problem, curve: Curve) -> list[np.ndarray]:
    """Good plans within one budget that are not on the curve."""
    several = len(problem.limits) > 1
    if several:
        start = search.solve(problem, time_limit_s=_SOLVE_LIMIT_S).choice
        if start is None:
            return []
    else:
        start = curve.choice(curve.at(int(problem.limits[0])))
    choices = [start] if several else []
    if search.interaction is not None:
        allocation = allocate(
            search.interaction,
            problem,
            [start],
            seed=search.request.seed,
            search_limit_s=_SEARCH_LIMIT_S,
            bound_limit_s=0,
        )
        choices += list(allocation.choices)
    return choices


def _unbeaten(sizes: np.ndarray, damages: np.ndarray) -> np.ndarray:
    """Indices of the plans that none of equal or smaller size beats, smallest first."""
    order = np.lexsort((damages, sizes))
    best = np.minimum.accumulate(damages[order])
    better = np.concatenate([[True], damages[order][1:] < best[:-1]])
    return order[better]


def _knee(sizes: np.ndarray, damages: np.ndarray) -> int:
    """The point farthest below the line between the ends, both axes scaled to 0..1 (Satopaa et al., 2011)."""
    if len(sizes) < 3:
        return 0
    across = (sizes - sizes[0]) / (sizes[-1] - sizes[0])
    down = (damages[0] - damages) / max(damages[0] - damages[-1], np.finfo(np.float64).tiny)
    return int((down - across).argmax())
