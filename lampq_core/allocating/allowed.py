"""Which options each layer may take: what the format stores, pins, floors, ceilings and layer inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.allocating.limits import input_use
from lampq.core.values.budget import Budget
from lampq.core.values.constraints import joined_ties
from lampq.core.values.errors import BudgetError, PlanError
from lampq.core.values.patterns import parse_rule, select, tie_groups
from lampq.core.values.profile import Profile


def allowed_options(
    profile: Profile, budget: Budget | None = None, *, pins: Sequence[str] = (), ties: Sequence[str] = ()
) -> np.ndarray:
    """Options that satisfy every rule about single layers, bool, shape (L, J); at least one per layer and tie.

    Args:
        profile: L layers, J options.
        budget: Its floors, ceilings and largest layer input count here.
        pins: `PATTERN=BITS` texts; a later one overrides an earlier one.
        ties: Patterns whose layers take one option together.

    Raises:
        PlanError: A pattern matches nothing, or a pin's width was not profiled.
        BudgetError: The rules leave a layer, or tied layers, without an option; names the rules.
    """
    allowed = profile.available
    rules: list[list[str]] = [[] for _ in profile.places]

    def keep(layer: int, mask: np.ndarray, rule: str) -> None:
        before = allowed[layer].copy()
        allowed[layer] &= mask
        if (before != allowed[layer]).any():
            rules[layer].append(rule)
        if not allowed[layer].any():
            raise BudgetError(
                f"layer {profile.places[layer].name}: {' and '.join(rules[layer])} leave it no option of "
                f"{_texts(profile, profile.available[layer])}; relax one of them"
            )

    for layer, (mask, rule) in _pinned(profile, pins).items():
        keep(layer, mask, rule)
    for what, texts in (
        ("floor", () if budget is None else budget.floors),
        ("ceiling", () if budget is None else budget.ceilings),
    ):
        for text in texts:
            pattern, width = parse_rule(text, what)
            test = width.is_floor_of if what == "floor" else width.is_ceiling_of
            mask = np.array([test(option) for option in profile.options])
            for layer in select(profile.places, pattern):
                keep(layer, mask, f"{what} {text!r}")
    if budget is not None and budget.max_activation_bytes is not None:
        _keep_inputs_below(profile, budget.max_activation_bytes, allowed)
    for pattern, group in tied_layers(profile, ties):
        common = allowed[list(group)].all(axis=0)
        if not common.any():
            raise BudgetError(_tie_clash(profile, pattern, group, allowed, rules))
        allowed[list(group)] = common
    return allowed


def tied_layers(profile: Profile, ties: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Disjoint groups of layers that take one option together, each with the patterns that tie it.

    Raises:
        PlanError: A pattern ties nothing.
    """
    groups = [(pattern, group) for pattern in ties for group in tie_groups(profile.places, pattern)]
    joined = joined_ties([group for _, group in groups], len(profile.places))
    return [
        (", ".join(dict.fromkeys(p for p, part in groups if set(part) <= set(group))), group)
        for group in joined
    ]


def _pinned(profile: Profile, pins: Sequence[str]) -> dict[int, tuple[np.ndarray, str]]:
    pinned: dict[int, tuple[np.ndarray, str]] = {}
    for text in pins:
        pattern, width = parse_rule(text, "pin")
        mask = np.array([width.is_of(option) for option in profile.options])
        if not mask.any():
            raise PlanError(
                f"pin {text!r}: the profile has {_texts(profile, np.ones(len(mask), dtype=bool))}; "
                f"profile {width.to_text()} too"
            )
        pinned.update(dict.fromkeys(select(profile.places, pattern), (mask, f"pin {text!r}")))
    return pinned


def _keep_inputs_below(profile: Profile, most_bytes: int, allowed: np.ndarray) -> None:
    """Drop options whose input of one sample takes more bytes than allowed, in place."""
    use = input_use(profile)
    fits = use <= 8 * most_bytes
    stuck = ~(fits & allowed).any(axis=1)
    if stuck.any():
        least = np.where(allowed, use, np.iinfo(np.int64).max).min(axis=1)
        worst = int(np.argmax(np.where(stuck, least, 0)))
        raise BudgetError(
            f"largest layer input {most_bytes:,} bytes: that of {profile.places[worst].name} takes at least "
            f"{-(-int(least[worst]) // 8):,} bytes; the nearest feasible limit is that, or profile narrower inputs"
        )
    allowed &= fits


def _tie_clash(
    profile: Profile, pattern: str, group: tuple[int, ...], allowed: np.ndarray, rules: list[list[str]]
) -> str:
    """Names two tied layers with no option in common, or else the whole tie."""
    pairs = [
        (a, b) for i, a in enumerate(group) for b in group[i + 1 :] if not (allowed[a] & allowed[b]).any()
    ]
    shown = pairs[0] if pairs else group
    parts = [
        f"{profile.places[layer].name} may take {_texts(profile, allowed[layer])}"
        + (f" ({', '.join(rules[layer])})" if rules[layer] else "")
        for layer in shown[:3]
    ]
    return f"tie {pattern!r}: its layers have no option in common: {'; '.join(parts)}"


def _texts(profile: Profile, mask: np.ndarray) -> str:
    return ", ".join(profile.option_text(index) for index in np.flatnonzero(mask).tolist())
