"""Profile in, plan out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq import solvers
from lampq.core.allocation import Budget, build_plan, build_problem, uniform_choice
from lampq.core.errors import BudgetError
from lampq.core.interaction import Interaction, profile_interaction
from lampq.core.pareto import pareto
from lampq.core.plan import Plan
from lampq.core.problem import Problem
from lampq.core.profile import Profile
from lampq.core.scores import SUPERPOSITION, automatic_mode, predicted_damage
from lampq.core.solution import Solution
from lampq.core.superposition import allocate

# The paper leaves these two kinds out of the search.
_LAMPQ_PINS = ("patch_embed", "head")

_BOUND_LIMIT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """A search made ready: what to minimize, within what, and how.

    Attributes:
        profile: Measurements of the model.
        mode: Score, never `auto`.
        cost: Damage of single layers, nats, shape (L, J); the start of the search in mode superposition.
        problem: Limits, ties, pins.
        interaction: Damage of whole plans, in mode superposition.
        notes: Remarks for the plan.
    """

    profile: Profile
    mode: str
    cost: np.ndarray
    problem: Problem
    interaction: Interaction | None
    notes: tuple[str, ...]

    def predict(self, choice: np.ndarray) -> float:
        """Predicted damage of a plan, nats; shape of `choice` is (L,)."""
        if self.interaction is not None:
            return float(self.interaction.predict(choice))
        return self.problem.objective(choice)


def plan(
    profile: Profile,
    *,
    average_bits: float | str | None = None,
    size_bytes: int | None = None,
    max_kl: float | None = None,
    mode: str = "auto",
    solver: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    time_limit_s: float | None = None,
    seed: int = 0,
) -> Plan:
    """Choose the width of every layer so that the predicted damage is least and every limit holds.

    Args:
        profile: Measurements of the model.
        average_bits: Most bits per weight on average over all layers; a text is taken as the decimal it says.
        size_bytes: Most bytes of the whole model.
        max_kl: Instead of a budget: the smallest plan whose predicted damage is at most this many nats.
        mode: `superposition`, `kl`, `fisher`, `lampq`, `error`, or `auto`: the best that the profile allows.
        solver: `exact`, `scipy`, `cbc` or `auto`; in mode superposition it finds where the search starts.
        pins: Fixed widths, `PATTERN=BITS`. Mode lampq pins patch_embed and head to 8 bits unless told otherwise.
        ties: Patterns of layers that take one width together.
        time_limit_s: Most seconds for the solver.
        seed: Of the search in mode superposition.

    Raises:
        BudgetError: No plan fits the budget; names the floor.
        PlanError: A pattern matches nothing.
        RecordError: The profile lacks what the mode needs.
    """
    if max_kl is not None and (average_bits is not None or size_bytes is not None):
        raise BudgetError("a largest KL replaces the other budgets; give one or the other")
    budget = (
        Budget(size_bytes=_widest(profile))
        if max_kl is not None
        else Budget(average_bits=average_bits, size_bytes=size_bytes)
    )
    search = prepare(profile, budget, mode=mode, pins=pins, ties=ties)
    asked = budget.to_json()
    if max_kl is not None:
        search = _smallest(search, max_kl, seed)
        asked = {"max_kl": max_kl}
    solution, _ = find(search, solver=solver, time_limit_s=time_limit_s, seed=seed)
    return to_plan(search, solution, asked)


def prepare(
    profile: Profile,
    budget: Budget,
    *,
    mode: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
) -> Search:
    """Scores and limits of a search; see `plan` for the arguments and errors."""
    mode = automatic_mode(profile) if mode == "auto" else mode
    interaction = profile_interaction(profile) if mode == SUPERPOSITION else None
    cost, repaired = predicted_damage(profile, "kl" if mode == SUPERPOSITION else mode)
    pins = (*_default_pins(profile, mode), *pins)
    notes = [f"damage of {name} does not fall with every bit" for name in repaired]
    if mode == "error":
        notes.append(
            "made without data: relative weight error stands in for damage, which it predicts poorly"
        )
    return Search(
        profile=profile,
        mode=mode,
        cost=cost,
        problem=build_problem(profile, cost, budget, pins=pins, ties=ties),
        interaction=interaction,
        notes=tuple(notes),
    )


def find(
    search: Search,
    *,
    solver: str = "auto",
    time_limit_s: float | None = None,
    seed: int = 0,
    keep: int = 1,
    bound_limit_s: float = _BOUND_LIMIT_S,
) -> tuple[Solution, list[np.ndarray]]:
    """The best plan of a search, and up to `keep` good ones (that one first) for whoever can measure them.

    Raises:
        BudgetError: No plan meets all limits together.
    """
    start = solvers.solve(search.problem, solver=solver, time_limit_s=time_limit_s)
    if start.choice is None:
        raise BudgetError(
            f"no plan meets all limits together (solver {start.solver}: {start.status.value}); relax one of them"
        )
    if search.interaction is None:
        return start, [start.choice]
    starts = [start.choice]
    uniform = uniform_choice(search.profile, search.problem)
    if uniform is not None:
        starts.append(uniform)
    found = allocate(
        search.interaction,
        search.problem,
        starts,
        seed=seed,
        keep=keep,
        search_limit_s=time_limit_s,
        bound_limit_s=bound_limit_s,
    )
    return found.solution, [*found.choices, start.choice]


def to_plan(search: Search, solution: Solution, asked: dict[str, float]) -> Plan:
    """The plan of a solution, with what the best uniform plan within the same limits is predicted to lose."""
    notes = list(search.notes)
    uniform = uniform_choice(search.profile, search.problem)
    known = search.mode != "error"
    if uniform is not None and known:
        bits = search.profile.weight_bits[int(np.bincount(uniform).argmax())]
        notes.append(
            f"uniform {bits} bits within the same limits: predicted {search.predict(uniform):.4g} nats"
        )
    return build_plan(
        search.profile,
        solution.choice,
        mode=search.mode,
        budget=asked,
        cost=search.cost if known else None,
        predicted_kl=solution.objective if known else None,
        bound=solution.bound if known and np.isfinite(solution.bound) else None,
        solver=solution.solver,
        notes=notes,
    )


def _default_pins(profile: Profile, mode: str) -> tuple[str, ...]:
    if mode != "lampq" or 8 not in profile.weight_bits:
        return ()
    present = {layer.kind for layer in profile.layers}
    return tuple(f"{kind}=8" for kind in _LAMPQ_PINS if kind in present)


def _widest(profile: Profile) -> int:
    return profile.rest_bytes + int(profile.payload_bytes.max(axis=1).sum())


def _smallest(search: Search, max_kl: float, seed: int) -> Search:
    """The search under the smallest limit in bytes that keeps the predicted damage at `max_kl`.

    Raises:
        BudgetError: No plan does, or the mode predicts no damage.
    """
    if search.mode == "error":
        raise BudgetError("a largest KL needs predictions in nats; profile the model with --data")
    if not max_kl > 0:
        raise BudgetError(f"largest KL {max_kl}: must be above 0 nats")
    curve = pareto(search.problem)

    def limited(index: int) -> Search:
        limits = np.array([curve.sizes[index]], dtype=np.int64)
        return dataclasses.replace(search, problem=dataclasses.replace(search.problem, limits=limits))

    def damage(index: int) -> float:
        if search.interaction is None:
            return float(curve.damages[index])
        return find(limited(index), seed=seed, bound_limit_s=0)[0].objective

    low, high = 0, len(curve) - 1
    if damage(high) > max_kl:
        raise BudgetError(
            f"largest KL {max_kl:g}: even the widest plan is predicted to lose {damage(high):.3g} nats; "
            f"allow more or profile wider widths"
        )
    # More bytes never cost more damage, so the smallest limit that suffices is found by halving.
    while low < high:
        middle = (low + high) // 2
        if damage(middle) <= max_kl:
            high = middle
        else:
            low = middle + 1
    return limited(high)
