"""A plan on a profile: which place and which option of the profile each layer and product of the plan has."""

from __future__ import annotations

import numpy as np

from lampq.core.values.errors import PlanError
from lampq.core.values.match import match
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.plan_product import PlanProduct
from lampq.core.values.profile import Profile


def places(plan: Plan, profile: Profile) -> list[int]:
    """Index in the profile of each layer of the plan, and behind them of each product.

    Raises:
        PlanError: A layer or product on either side has no partner.
    """
    matching = match(plan.layers, profile.layers)
    place = dict(matching.pairs)
    lone = [layer.name for index, layer in enumerate(plan.layers) if index not in place]
    used = set(place.values())
    lone += [layer.name for index, layer in enumerate(profile.layers) if index not in used]
    if lone:
        raise PlanError(
            f"the profile is not of the plan's model: {len(lone)} layers have no match, {lone[0]} first; "
            f"give the profile that the plan was made from"
        )
    return [*(place[index] for index in range(len(plan.layers))), *_products(plan, profile)]


def _products(plan: Plan, profile: Profile) -> list[int]:
    known = {product.name: index for index, product in enumerate(profile.products, start=len(profile.layers))}
    planned = [product.name for product in plan.products]
    lone = sorted(known.keys() ^ set(planned))
    if lone:
        side = "plan" if lone[0] in known else "profile"
        raise PlanError(
            f"the profile is not of the plan's sites: the {side} has no product {lone[0]}; give the profile that the "
            f"plan was made from"
        )
    return [known[name] for name in planned]


def placed_choice(plan: Plan, profile: Profile, order: list[int]) -> np.ndarray:
    """The plan as option indices in the profile's order, shape (L + P,).

    Args:
        plan: The plan.
        profile: The profile.
        order: From `places`.

    Raises:
        PlanError: An option of a layer or product was not profiled.
    """
    options: dict[tuple[int | None, int | None, int], int] = {
        (option.weight_bits, option.activation_bits, option.rank): j
        for j, option in enumerate(profile.options)
    }
    choice = np.empty(len(order), dtype=np.int64)
    for decision, index in zip(plan.places, order, strict=True):
        rank = decision.rank if isinstance(decision, PlanLayer) else 0
        option = options.get((*decision.widths, rank))
        if option is None or not profile.available[index, option]:
            raise PlanError(f"{decision.name}: the profile has no {_text(decision)} for it; profile that too")
        choice[index] = option
    return choice


def _text(decision: PlanLayer | PlanProduct) -> str:
    if isinstance(decision, PlanProduct):
        left, right = ("float" if bits is None else f"{bits} bits" for bits in decision.widths)
        return f"factors of {left} and {right}"
    inputs = f" with an input of {decision.activation_bits}" if decision.activation_bits else ""
    factors = f" with factors of rank {decision.rank}" if decision.rank else ""
    return f"{decision.weight_bits} bits{inputs}{factors}"
