"""What a plan is asked to be, and how it is looked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lampq.core.values.budget import Budget, is_set
from lampq.core.values.choices import refuse_unknown
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.patterns import parse_rule
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.score import AUTO, Score, name_of

# Rounds where they pay: the last of them is refused as a rule.
_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A plan's limits, its score, what is held, and how long and where the search looks.

    Attributes:
        budget: Limits, or None.
        mode: A score or the name of one, such as `superposition`, `kl`, `fisher`, `lampq` or `error`, which is looked
            up where it is used; or `auto`: the best that the profile allows.
        pins: Fixed widths, `PATTERN=BITS`; a later one overrides an earlier one. Mode lampq pins patch_embed and head
            to 8 bits unless told otherwise.
        ties: Patterns of layers that take one width together.
        seed: Of every random choice, >= 0.
        solver: `exact`, `scipy`, `cbc` or `auto`; in mode superposition it finds where the search starts.
        time_limit_s: Most seconds for the solver, or None.
        rounds: Where the model is at hand: the most rounds of measuring around the plan, >= 0; 0 leaves out the
            update of mode lampq too. None: three, and none where they do not pay (`core.planning.best`).
        recipe: Choices of mode lampq.
    """

    budget: Budget | None = None
    mode: str | Score = AUTO
    pins: tuple[str, ...] = ()
    ties: tuple[str, ...] = ()
    seed: int = 0
    solver: str = "auto"
    time_limit_s: float | None = None
    rounds: int | None = None
    recipe: Recipe = PUBLISHED

    def __post_init__(self) -> None:
        for name in ("pins", "ties"):
            texts = getattr(self, name)
            if isinstance(texts, str):
                raise RecordError(f"{name} {texts!r}: give a list of texts, such as [{texts!r}]")
            object.__setattr__(self, name, tuple(texts))
        object.__setattr__(self, "seed", int(self.seed))
        if self.rounds is not None:
            object.__setattr__(self, "rounds", int(self.rounds))
        for text in self.pins:
            parse_rule(text, "pin")
        if not isinstance(self.mode, str | Score):
            raise RecordError(f"mode {self.mode!r} is neither a score nor the name of one")
        if self.seed < 0 or self.most_rounds < 0:
            raise RecordError(f"seed {self.seed}, rounds {self.most_rounds}: must be at least 0")
        if self.time_limit_s is not None and not 0 <= self.time_limit_s < math.inf:
            raise BudgetError(f"time limit {self.time_limit_s}: must be a number of seconds, at least 0")

    @classmethod
    def of(cls, request: Request | Budget | None = None, **choices: Any) -> Request:
        """A request with further choices, each by the name of a field, or of a field of `Budget`.

        Args:
            request: What to begin with; a budget alone is a request for it.
            **choices: Fields to set. Limits count in addition to those of the budget.

        Raises:
            RecordError: A name is unknown, or a choice cannot be.
            BudgetError: A limit is given twice, or cannot be kept by anything.

        >>> Request.of(average_bits=3, mode="kl").budget.average_bits
        3
        """
        refuse_unknown(choices, cls.names(), "a plan")
        base = request if isinstance(request, Request) else cls(budget=request)
        if base.budget is not None and choices.get("budget") is not None:
            raise BudgetError("the budget is given twice")
        own = {field.name for field in fields(cls)}
        limits = {name: choices.pop(name) for name in list(choices) if name not in own}
        chosen = replace(base, **choices)
        limits = {name: limit for name, limit in limits.items() if is_set(limit)}
        return replace(chosen, budget=_joined(chosen.budget, limits)) if limits else chosen

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names that `of` knows."""
        return tuple(field.name for record in (cls, Budget) for field in fields(record))

    @property
    def limits(self) -> Budget:
        """The budget.

        Raises:
            BudgetError: There is none.
        """
        return Budget() if self.budget is None else self.budget

    @property
    def most_rounds(self) -> int:
        """The most rounds, where they pay."""
        return _ROUNDS if self.rounds is None else self.rounds

    def to_json(self) -> dict[str, Any]:
        """All but the budget as plain values; plans keep that in a field of its own."""
        return {
            "mode": name_of(self.mode),
            "pins": list(self.pins),
            "ties": list(self.ties),
            "seed": self.seed,
            "solver": self.solver,
            "time_limit_s": self.time_limit_s,
            "rounds": self.rounds,
            "recipe": self.recipe.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`; other keys are passed over.

        Raises:
            RecordError: A choice cannot be.
        """
        known = {field.name for field in fields(cls)} - {"budget", "recipe"}
        values = {key: value for key, value in data.items() if key in known}
        return cls(**values, recipe=Recipe.from_json(data.get("recipe", {})))


def _joined(budget: Budget | None, limits: Mapping[str, Any]) -> Budget:
    if budget is None:
        return Budget(**limits)
    for name in limits:
        if is_set(getattr(budget, name)):
            raise BudgetError(f"{name} is given twice, in the budget and beside it")
    return replace(budget, **limits)
