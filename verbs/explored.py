"""The plans of a curve with their layers, as the report page lets people go through them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from lampq.core.planning.search import Search
from lampq.core.planning.tradeoff import Point as Swept
from lampq.page.findings import Point, Sweep


def explored(
    search: Search,
    curve: Sequence[Swept],
    own: tuple[np.ndarray, Point],
    *,
    order: Sequence[int],
    uniform: Mapping[int, int],
    profile_file: str,
) -> Sweep:
    """The curve with the plan of the page among its plans, at the place of its size.

    Args:
        search: What the curve came from.
        curve: Its plans, cheapest first.
        own: The plan of the page in the profile's order, shape (L,), and where it lies.
        order: Index in the profile of each layer of the plan.
        uniform: Width -> option of the uniform plans.
        profile_file: Name of the profile's file, for commands.
    """
    profile, (choice, here) = search.profile, own
    choices, places = _choices(search, curve), [_place(plan) for plan in curve]
    operations = [plan.bops for plan in curve if plan.input_widths and plan.bops is not None]
    equal = np.flatnonzero((choices == choice).all(axis=1)).tolist()
    start = equal[0] if equal else int(np.searchsorted([p.size_bytes for p in places], here.size_bytes))
    if not equal:
        choices = np.insert(choices, start, choice, axis=0)
        places.insert(start, here)
        # The page's own plan is a file, for which nobody needs a budget.
        operations[start:start] = [0] if operations else []
    return Sweep(
        options=profile.options,
        choices=choices[:, order],
        points=tuple(places),
        start=start,
        payload_bytes=profile.payload_bytes[order],
        damage=search.cost[order] if search.score.in_nats else None,
        uniform=dict(uniform),
        command=_command(search, profile_file),
        operations=tuple(operations) or None,
    )


def _place(plan: Swept) -> Point:
    damage = max(0.0, plan.predicted_kl)
    return Point(size_bytes=plan.size_bytes, damage=damage, average_bits=plan.average_bits)


def _choices(search: Search, plans: Sequence[Swept]) -> np.ndarray:
    """Option of each layer of each plan, shape (P, L)."""
    options = search.profile.options
    # Where all options have the same input, plans do not repeat it.
    varied = bool(plans[0].input_widths)
    sides = (
        max(option.weight_bits for option in options),
        max(option.activation_bits or 0 for option in options),
        max(option.rank for option in options),
    )
    index = np.zeros(tuple(side + 1 for side in sides), dtype=np.uint8)
    for number, option in enumerate(options):
        index[option.weight_bits, (option.activation_bits or 0) if varied else 0, option.rank] = number
    widths = np.array([plan.widths for plan in plans], dtype=np.uint8)
    inputs = [[width or 0 for width in plan.input_widths] or [0] for plan in plans]
    ranks = [plan.ranks or (0,) for plan in plans]
    return index[widths, np.array(inputs, dtype=np.uint8), np.array(ranks, dtype=np.int64)]


def _command(search: Search, profile_file: str) -> str:
    request = search.request
    words = ["lampq", "plan", profile_file, "--mode", search.mode]
    for flag, texts in (("--pin", request.pins), ("--tie", request.ties)):
        words += [word for text in texts for word in (flag, text)]
    return shlex.join(words + (["--seed", str(request.seed)] if request.seed else []))
