"""Why a plan gives each layer its width: what one width more or less would cost and save."""

from __future__ import annotations

import math

import numpy as np

from lampq import solvers
from lampq.core.allocating.limits import BYTES
from lampq.core.planning.asked import asked, without_largest_kl
from lampq.core.planning.search import Search
from lampq.core.values.head import summary
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.core.values.rounding_kinds import profiled
from lampq.verbs.inspect import Listing
from lampq.verbs.placed import placed_choice, places


def why(plan: Plan, profile: Profile | None = None) -> Listing:
    """What the next narrower and wider options of every layer and product would change, all others as planned.

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
            rows=tuple((p.name, p.kind, _has(*p.widths), p.why) for p in plan.places),
        )
    order = places(plan, profile)
    choice = placed_choice(plan, profile, order)
    request = asked(plan, profile)
    most_damage = math.inf
    if request.budget is not None and request.budget.max_kl is not None:
        most_damage = request.budget.max_kl
    unlimited = request.budget is None
    search = Search.of(profile, without_largest_kl(request), solvers.solve)
    changes = search.changes(choice, most_damage=most_damage)
    weights = int(profile.sizes.sum())
    rows = []
    for decision, index in zip(plan.places, order, strict=True):
        for change in changes[index]:
            rows.append(
                (
                    decision.name,
                    decision.kind,
                    profile.option_text(int(choice[index])),
                    profile.option_text(change.option),
                    change.damage,
                    change.size_bytes,
                    change.bits / weights,
                    None if unlimited else change.fits,
                )
            )
    return Listing(
        what="reasons",
        facts={
            "mode": search.mode,
            "interactions": search.interaction is not None,
            "judged outputs": summary(profile.heads) if len(profile.heads) > 1 else None,
            "predicted KL" if search.score.in_nats else search.score.unit: search.predict(choice),
            "limits the plan breaks": _broken(search, choice),
            "note": None
            if (profiled(plan.rounding), plan.block) == (profile.rounding, profile.block)
            else "the profile was measured with another rounding or block than the plan's: figures are of the former",
        },
        columns=("name", "kind", "has", "instead", "damage", "bytes", "average bits", "fits the limits"),
        rows=tuple(rows),
    )


def _broken(search: Search, choice: np.ndarray) -> list[str]:
    """Names of the limits that a plan does not keep; bytes are those of its file."""
    budget, problem = search.request.budget, search.problem
    used = dict(zip(problem.resource_names, problem.usage(choice).tolist(), strict=True))
    most = dict(zip(problem.resource_names, problem.limits.tolist(), strict=True))
    if budget is not None and budget.size_bytes is not None:
        used[BYTES], most[BYTES] = search.profile.total_bytes(choice), budget.size_bytes
    return [name for name in used if used[name] > most[name]]


def _has(weight_bits: int | None, activation_bits: int | None) -> str:
    if weight_bits is None or activation_bits is None:
        return f"{weight_bits or activation_bits or 'no'} bits"
    return f"w{weight_bits}a{activation_bits}"
