"""Why a plan gives each layer its width: what one width more or less would cost and save."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lampq.core.allocating.limits import Budget
from lampq.core.allocating.scores import MODES, SUPERPOSITION
from lampq.core.searching.why import next_changes
from lampq.core.values.errors import BudgetError
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.verbs.inspect import Listing
from lampq.verbs.placed import placed_choice, places
from lampq.verbs.plan import prepare


def why(plan: Plan, profile: Profile | None = None) -> Listing:
    """What the next narrower and the next wider option of every layer would change, all other layers as planned.

    Args:
        plan: The plan.
        profile: What it was made from, or another profile of the model. Where it holds logit differences,
            interactions with all other layers are included. None lists the sentences that the plan carries.

    Raises:
        PlanError: The profile is of another model, or lacks a width that the plan uses.
        RecordError: The plan breaks its own ties.
    """
    if profile is None:
        columns = ("name", "kind", "has", "why")
        return Listing(
            what="reasons",
            facts={
                "mode": plan.mode,
                "more": "give the profile (--profile) for figures under today's limits",
            },
            columns=columns,
            rows=tuple((p.name, p.kind, _has(p.weight_bits, p.activation_bits), p.why) for p in plan.layers),
        )
    order = places(plan, profile)
    choice = placed_choice(plan, profile, order)
    mode = plan.mode if plan.mode in (*MODES, SUPERPOSITION) else "auto"
    if mode == SUPERPOSITION and not profile.interacts:
        mode = "auto"
    budget, most_damage = _limits(plan.budget)
    search = prepare(
        profile, budget, mode=mode, pins=_texts(plan.budget, "pins"), ties=_texts(plan.budget, "ties")
    )
    changes = next_changes(profile, search.problem, choice, search.interaction, most_damage=most_damage)
    weights = int(profile.sizes.sum())
    limited = budget is not None or most_damage < math.inf
    rows = []
    for layer, index in zip(plan.layers, order, strict=True):
        for change in changes[index]:
            rows.append(
                (
                    layer.name,
                    layer.kind,
                    profile.option_text(int(choice[index])),
                    profile.option_text(change.option),
                    change.damage,
                    change.size_bytes,
                    change.bits / weights,
                    change.fits if limited else None,
                )
            )
    over = [
        name
        for name, used, limit in zip(
            search.problem.resource_names,
            search.problem.usage(choice).tolist(),
            search.problem.limits.tolist(),
            strict=True,
        )
        if used > limit
    ]
    return Listing(
        what="reasons",
        facts={
            "mode": search.mode,
            "interactions": search.interaction is not None,
            "predicted KL" if search.mode != "error" else "relative weight error": search.predict(choice),
            "limits the plan breaks": over,
            "note": None
            if (plan.rounding, plan.block) == (profile.rounding, profile.block)
            else "the profile was measured with another rounding or block than the plan's: figures are of the former",
        },
        columns=("name", "kind", "has", "instead", "damage", "bytes", "average bits", "fits the limits"),
        rows=tuple(rows),
    )


def _limits(asked: Mapping[str, Any]) -> tuple[Budget | None, float]:
    """The budget a plan was made for without its largest KL, and that."""
    try:
        budget = Budget.from_json(asked)
    except BudgetError:
        # Plans made by hand or by other tools need not state a limit.
        return None, math.inf
    most = math.inf if budget.max_kl is None else budget.max_kl
    rest = {name: value for name, value in budget.to_json().items() if name != "max_kl"}
    return (Budget.from_json(rest) if rest else None), most


def _texts(asked: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = asked.get(name, ())
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def _has(weight_bits: int, activation_bits: int | None) -> str:
    return f"w{weight_bits}a{activation_bits}" if activation_bits else f"{weight_bits} bits"
