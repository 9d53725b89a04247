"""A search for a plan: what to minimize, within what, and who solves it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.allocating.allocation import build_plan, uniform_choice
from lampq.core.allocating.limits import BYTES
from lampq.core.allocating.predicted_damage import predicted_damage
from lampq.core.allocating.scores import asked_score
from lampq.core.allocating.smallest import limited
from lampq.core.measuring.interaction import Interaction, profile_interaction
from lampq.core.planning.feasible import feasible_problem
from lampq.core.planning.neighbours import by_size, next_choices
from lampq.core.planning.remarks import remarks
from lampq.core.planning.smallest import smallest_limit
from lampq.core.planning.solve import Solve
from lampq.core.searching.superposition import allocate
from lampq.core.searching.why import Change, next_changes, sentences
from lampq.core.values.errors import BudgetError
from lampq.core.values.plan import Neighbour, Plan
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile
from lampq.core.values.request import Request
from lampq.core.values.score import Score
from lampq.core.values.solution import Solution

_BOUND_LIMIT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Best:
    """What a search found.

    Attributes:
        solution: The best plan, and how good any could be.
        choices: Good plans for whoever can measure them, the best first, each of shape (L,).
    """

    solution: Solution
    choices: tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """A request on a profile, made ready. L layers, J options.

    Attributes:
        profile: Measurements of the model, as far as the score sees them.
        request: What is asked for.
        score: What is minimized.
        pins: All pins, those of the score first.
        cost: Damage of single layers in the unit of the score, shape (L, J); where layers interact, the start of the
            search.
        problem: Limits, ties, pins; a largest KL as bytes.
        uniform: The best uniform plan within the limits, shape (L,), or None: of what layers share only what it needs
            itself counts, whatever the problem sets aside.
        interaction: Damage of whole plans, where the score uses it.
        notes: Remarks for the plan.
        solve: A solver.
    """

    profile: Profile
    request: Request
    score: Score
    pins: tuple[str, ...]
    cost: np.ndarray
    problem: Problem
    uniform: np.ndarray | None
    interaction: Interaction | None
    notes: tuple[str, ...]
    solve: Solve

    @classmethod
    def of(cls, profile: Profile, request: Request, solve: Solve) -> Search:
        """Scores and limits of a request, a largest KL turned into bytes.

        Raises:
            BudgetError: No plan fits the budget; names the limits that clash and the nearest feasible values.
            PlanError: A pattern matches nothing.
            RecordError: The profile lacks what the score needs, or there is no such score.
        """
        score = asked_score(request.mode, profile)
        profile = score.view(profile)
        cost, repaired = predicted_damage(profile, score, request.recipe)
        # What cannot be met is refused before interactions are worked out.
        problem, pins = feasible_problem(
            profile, cost, request, solve, default_pins=score.default_pins(profile)
        )
        size_bytes = None if request.budget is None else request.budget.size_bytes
        search = cls(
            profile=profile,
            request=request,
            score=score,
            pins=tuple(pins),
            cost=cost,
            problem=problem,
            uniform=uniform_choice(profile, problem, size_bytes=size_bytes),
            interaction=profile_interaction(profile) if score.uses_interactions else None,
            notes=remarks(profile, score, repaired, request.budget, problem),
            solve=solve,
        )
        max_kl = None if request.budget is None else request.budget.max_kl
        return search if max_kl is None else search.keeping(max_kl)

    @property
    def mode(self) -> str:
        """The name of the score, never `auto`."""
        return self.score.name

    @property
    def asked(self) -> dict[str, Any]:
        """The limits, pins and ties, as plans carry them."""
        limits = {} if self.request.budget is None else self.request.budget.to_json()
        rules = {"pins": list(self.pins), "ties": list(self.request.ties)}
        return limits | {name: texts for name, texts in rules.items() if texts}

    def predict(self, choice: np.ndarray) -> float:
        """Predicted damage of a plan, nats; shape of `choice` is (L,)."""
        if self.interaction is not None:
            return float(self.interaction.predict(choice))
        return self.problem.objective(choice)

    def within(self, limit: int, resource: int = 0) -> Search:
        """The search under another limit on one resource."""
        problem = limited(self.problem, limit, resource)
        return dataclasses.replace(self, problem=problem, uniform=uniform_choice(self.profile, problem))

    def keeping(self, max_kl: float) -> Search:
        """The search under the smallest limit in bytes that keeps the predicted damage.

        Args:
            max_kl: Nats, > 0.

        Raises:
            BudgetError: No plan keeps it, or the score predicts no damage.
        """
        if not self.score.in_nats:
            remedy = "profile the model with --data" if not self.profile.samples else "take another mode"
            raise BudgetError(
                f"a largest KL needs predictions in nats, which mode {self.score.name} has not; {remedy}"
            )
        resource = self.problem.resource_names.index(BYTES)
        # Many limits are tried: the fastest solver is good enough for all but the last.
        quick = dataclasses.replace(
            self, request=dataclasses.replace(self.request, solver="auto", time_limit_s=None)
        )

        def damage(limit: int) -> float:
            try:
                return quick.within(limit, resource).best(bound_limit_s=0).solution.objective
            except BudgetError:
                # So few bytes clash with the other limits.
                return np.inf

        widest = quick.best(bound_limit_s=0).solution.objective
        if widest > max_kl:
            raise BudgetError(
                f"largest KL {max_kl:g}: the widest plan within the limits is predicted to lose {widest:.3g} nats; "
                f"allow more or profile wider widths"
            )
        limit = smallest_limit(
            self.problem, resource, max_kl, interaction=self.interaction, solve=self.solve, damage=damage
        )
        return self if limit is None else self.within(limit, resource)

    def best(self, *, keep: int = 1, bound_limit_s: float = _BOUND_LIMIT_S) -> Best:
        """The best plan, and up to `keep` good ones.

        Raises:
            BudgetError: No plan meets all limits together.
        """
        request = self.request
        start = self.solve(self.problem, solver=request.solver, time_limit_s=request.time_limit_s)
        if start.choice is None:
            raise BudgetError(
                f"no plan meets all limits together (solver {start.solver}: {start.status.value}); relax one of them"
            )
        if self.interaction is None:
            return Best(solution=start, choices=(start.choice,))
        uniform = uniform_choice(self.profile, self.problem)
        allocation = allocate(
            self.interaction,
            self.problem,
            [start.choice] if uniform is None else [start.choice, uniform],
            seed=request.seed,
            keep=keep,
            search_limit_s=request.time_limit_s,
            bound_limit_s=bound_limit_s,
        )
        return Best(solution=allocation.solution, choices=(*allocation.choices, start.choice))

    def plan(self, solution: Solution) -> Plan:
        """The plan of a solution, with what the best uniform plan within the same limits is predicted to lose."""
        notes = list(self.notes)
        predicts = self.score.in_nats
        if self.uniform is not None and predicts:
            width = self.profile.option_text(int(np.bincount(self.uniform).argmax()))
            notes.append(
                f"uniform {width} within the same limits: predicted {self.predict(self.uniform):.4g} nats"
            )
        plan = build_plan(
            self.profile,
            solution.chosen,
            mode=self.mode,
            budget=self.asked,
            cost=self.cost if predicts else None,
            why=self.why(solution.chosen),
        )
        return dataclasses.replace(
            plan,
            request=self.request,
            predicted_kl=solution.objective if predicts else None,
            # Damage is never negative, which a relaxation does not know.
            bound=max(solution.bound, 0.0) if predicts and np.isfinite(solution.bound) else None,
            solver=solution.solver,
            notes=tuple(notes),
        )

    def why(self, choice: np.ndarray) -> list[str]:
        """A sentence per layer: what the next options would cost and save. Empty where damage is not predicted."""
        if not self.score.in_nats:
            return []
        budget = self.request.budget
        most_damage = math.inf if budget is None or budget.max_kl is None else budget.max_kl
        return sentences(self.profile, self.changes(choice, most_damage=most_damage))

    def changes(self, choice: np.ndarray, *, most_damage: float = math.inf) -> list[list[Change]]:
        """For each layer what its next options would change, held against what was asked for.

        Args:
            choice: The plan, shape (L,).
            most_damage: A limit on the damage of the whole plan, nats.
        """
        budget, problem, most_bytes = self.request.budget, self.problem, None
        if budget is not None and BYTES in problem.resource_names:
            # The bytes of a search serve a largest KL, or set aside what its options might share.
            resource = problem.resource_names.index(BYTES)
            problem = limited(problem, int(problem.resources[resource].max(axis=1).sum()), resource)
            most_bytes = budget.size_bytes
        return next_changes(
            self.profile,
            problem,
            choice,
            self.interaction,
            most_damage=most_damage,
            most_bytes=most_bytes,
        )

    def neighbours(self, choice: np.ndarray) -> tuple[Neighbour | None, Neighbour | None]:
        """The best smaller plan, and the smallest one that is predicted to lose less (`next_choices`).

        Limits on bits and bytes are set aside, all others hold, as do pins and ties.

        Args:
            choice: The plan, shape (L,).

        Returns:
            The cheaper and the dearer plan; None where there is none, or where the score predicts no damage.
        """
        if not self.score.in_nats:
            return None, None
        cheaper, dearer = next_choices(
            by_size(self.problem, self.profile.stored_bytes),
            choice,
            interaction=self.interaction,
            solve=self.solve,
            seed=self.request.seed,
        )
        return self._neighbour(cheaper), self._neighbour(dearer)

    def _neighbour(self, choice: np.ndarray | None) -> Neighbour | None:
        if choice is None:
            return None
        return Neighbour(
            total_bytes=self.profile.total_bytes(choice),
            average_bits=self.profile.average_bits(choice),
            predicted_kl=self.predict(choice),
        )
