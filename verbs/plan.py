"""Profile in, plan out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq import solvers
from lampq.core.allocation import build_plan, build_problem, uniform_choice
from lampq.core.clash import refuse_clash
from lampq.core.coding import INPUTS
from lampq.core.errors import BudgetError, RecordError
from lampq.core.interaction import Interaction, profile_interaction
from lampq.core.limits import BYTES, Budget, limits_of
from lampq.core.plan import Plan
from lampq.core.problem import Problem
from lampq.core.profile import Profile
from lampq.core.recipe import PUBLISHED, Recipe
from lampq.core.scores import SUPERPOSITION, automatic_mode, predicted_damage
from lampq.core.smallest import limited
from lampq.core.solution import Solution
from lampq.core.superposition import allocate
from lampq.core.why import next_changes, sentences
from lampq.verbs.neighbours import neighbours
from lampq.verbs.smallest import shrink

# The paper leaves these two kinds out of the search.
_LAMPQ_PINS = ("patch_embed", "head")

_BOUND_LIMIT_S = 3.0
# For each question asked to find out which limits clash.
CLASH_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """A search made ready: what to minimize, within what, and how.

    Attributes:
        profile: Measurements of the model.
        mode: Score, never `auto`.
        cost: Damage of single layers, nats, shape (L, J); the start of the search in mode superposition.
        problem: Limits, ties, pins.
        interaction: Damage of whole plans, in mode superposition.
        asked: The limits, pins and ties, as plans carry them.
        notes: Remarks for the plan.
    """

    profile: Profile
    mode: str
    cost: np.ndarray
    problem: Problem
    interaction: Interaction | None
    asked: dict[str, Any]
    notes: tuple[str, ...]

    def predict(self, choice: np.ndarray) -> float:
        """Predicted damage of a plan, nats; shape of `choice` is (L,)."""
        if self.interaction is not None:
            return float(self.interaction.predict(choice))
        return self.problem.objective(choice)

    def why(self, choice: np.ndarray) -> list[str]:
        """A sentence per layer: what the next options would cost and save. Empty where damage is not predicted."""
        if self.mode == "error":
            return []
        problem, most_damage = self.problem, self.asked.get("max_kl", np.inf)
        if "max_kl" in self.asked:
            # The bytes of the search serve the largest KL; what was asked for is what counts.
            resource, size = problem.resource_names.index(BYTES), self.asked.get("size_bytes")
            most = int(problem.resources[resource].max(axis=1).sum())
            limit = most if size is None else size - self.profile.rest_bytes
            problem = limited(problem, limit, resource)
        changes = next_changes(self.profile, problem, choice, self.interaction, most_damage=most_damage)
        return sentences(self.profile, changes)


def plan(
    profile: Profile,
    *,
    average_bits: float | str | None = None,
    size_bytes: int | None = None,
    max_kl: float | None = None,
    budget: Budget | None = None,
    mode: str = "auto",
    solver: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    recipe: Recipe = PUBLISHED,
    time_limit_s: float | None = None,
    seed: int = 0,
) -> Plan:
    """Choose the width of every layer so that the predicted damage is least and every limit holds.

    Args:
        profile: Measurements of the model.
        average_bits: Most bits per weight on average over all layers; a text is taken as the decimal it says.
        size_bytes: Most bytes of the whole model.
        max_kl: Most predicted damage in nats: the plan is the smallest that keeps it.
        budget: All kinds of limits; the three above, where given, count in addition.
        mode: `superposition`, `kl`, `fisher`, `lampq`, `error`, or `auto`: the best that the profile allows.
        solver: `exact`, `scipy`, `cbc` or `auto`; in mode superposition it finds where the search starts.
        pins: Fixed widths, `PATTERN=BITS`. Mode lampq pins patch_embed and head to 8 bits unless told otherwise.
        ties: Patterns of layers that take one width together.
        recipe: Choices of mode lampq.
        time_limit_s: Most seconds for the solver.
        seed: Of the search in mode superposition.

    Raises:
        BudgetError: No plan fits the budget; names the limits that clash and the nearest feasible values.
        PlanError: A pattern matches nothing.
        RecordError: The profile lacks what the mode needs.
    """
    budget = joined_budget(budget, average_bits=average_bits, size_bytes=size_bytes, max_kl=max_kl)
    search = prepare(profile, budget, mode=mode, pins=pins, ties=ties, recipe=recipe, seed=seed)
    solution, _ = find(search, solver=solver, time_limit_s=time_limit_s, seed=seed)
    cheaper, dearer = neighbours(search, solution.chosen, seed=seed)
    return dataclasses.replace(to_plan(search, solution), cheaper=cheaper, dearer=dearer)


def joined_budget(budget: Budget | None, **more: Any) -> Budget:
    """A budget with further limits, where given.

    Raises:
        BudgetError: There is no limit at all, or one is given twice.
    """
    given = {name: value for name, value in more.items() if value is not None}
    if budget is None:
        return Budget(**given)
    for name in given:
        if getattr(budget, name) is not None:
            raise BudgetError(f"{name} is given twice, in the budget and beside it")
    return dataclasses.replace(budget, **given)


def prepare(
    profile: Profile,
    budget: Budget | None,
    *,
    mode: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    recipe: Recipe = PUBLISHED,
    seed: int = 0,
) -> Search:
    """Scores and limits of a search, a largest KL turned into bytes; see `plan` for the arguments and errors.

    Mode lampq has one width for weights and input of a layer: of several input widths it sees the pairs of equal
    widths alone, and the search's profile is that part.
    """
    mode = automatic_mode(profile) if mode == "auto" else mode
    if mode == "lampq":
        profile = equal_widths(profile)
    cost, repaired = predicted_damage(profile, "kl" if mode == SUPERPOSITION else mode, recipe)
    pins = (*default_pins(profile, mode), *pins)
    problem = build_problem(profile, cost, budget, pins=pins, ties=ties)
    # What cannot be met is refused before interactions are worked out.
    refuse_clash(profile, budget, problem, functools.partial(solvers.solve, time_limit_s=CLASH_LIMIT_S))
    # Interactions are taken as measured: a plan's damage is no sum that a running minimum could repair.
    repair = "" if mode == SUPERPOSITION else ": running minimum taken"
    notes = [f"damage of {name} does not fall with every bit{repair}" for name in repaired]
    if mode == "fisher" and profile.rounding == INPUTS and profile.joint_fisher is None:
        notes.append(
            "mode fisher counts errors of weights; codes chosen for the layers' inputs lose less than it predicts"
        )
    if mode == "error":
        why = "made without data" if profile.samples == 0 else "mode error uses no data"
        notes.append(f"{why}: relative weight error stands in for damage, which it predicts poorly")
    notes += [limit.note for limit in limits_of(profile, budget, np.isfinite(problem.cost)) if limit.note]
    rules = {name: list(texts) for name, texts in (("pins", pins), ("ties", ties)) if texts}
    search = Search(
        profile=profile,
        mode=mode,
        cost=cost,
        problem=problem,
        interaction=profile_interaction(profile) if mode == SUPERPOSITION else None,
        asked={**({} if budget is None else budget.to_json()), **rules},
        notes=tuple(notes),
    )
    if budget is None or budget.max_kl is None:
        return search
    return shrink(search, budget.max_kl, functools.partial(find, seed=seed, bound_limit_s=0))


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


def to_plan(search: Search, solution: Solution) -> Plan:
    """The plan of a solution, with what the best uniform plan within the same limits is predicted to lose."""
    notes = list(search.notes)
    uniform = uniform_choice(search.profile, search.problem)
    known = search.mode != "error"
    if uniform is not None and known:
        width = search.profile.option_text(int(np.bincount(uniform).argmax()))
        notes.append(f"uniform {width} within the same limits: predicted {search.predict(uniform):.4g} nats")
    return build_plan(
        search.profile,
        solution.chosen,
        mode=search.mode,
        budget=search.asked,
        cost=search.cost if known else None,
        predicted_kl=solution.objective if known else None,
        # Damage is never negative, which a relaxation does not know.
        bound=max(solution.bound, 0.0) if known and np.isfinite(solution.bound) else None,
        solver=solution.solver,
        notes=notes,
        why=search.why(solution.chosen),
    )


def equal_widths(profile: Profile) -> Profile:
    """The options of a profile that have one width for weights and input; all of them where input widths do not vary.

    Raises:
        RecordError: There is none.
    """
    if len({option.activation_bits for option in profile.options}) == 1:
        return profile
    equal = [i for i, option in enumerate(profile.options) if option.weight_bits == option.activation_bits]
    if not equal:
        raise RecordError(
            "mode lampq gives weights and input of a layer one width, and the profile has no such pair"
        )
    return profile.narrowed(equal)


def default_pins(profile: Profile, mode: str) -> tuple[str, ...]:
    """Pins that a mode brings along; those of the user come after them and so override them."""
    if mode != "lampq" or 8 not in profile.weight_bits:
        return ()
    present = {layer.kind for layer in profile.layers}
    return tuple(f"{kind}=8" for kind in _LAMPQ_PINS if kind in present)
