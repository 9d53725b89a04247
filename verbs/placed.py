"""A plan on a profile: which layer and which option of the profile each layer of the plan has."""

from __future__ import annotations

import numpy as np

from lampq.core.values.errors import PlanError
from lampq.core.values.match import match
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile


def places(plan: Plan, profile: Profile) -> list[int]:
    """Index in the profile of each layer of the plan.

    Raises:
        PlanError: A layer on either side has no partner.
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
    return [place[index] for index in range(len(plan.layers))]


def placed_choice(plan: Plan, profile: Profile, order: list[int]) -> np.ndarray:
    """The plan as option indices in the profile's order, shape (L,).

    Args:
        plan: The plan.
        profile: The profile.
        order: From `places`.

    Raises:
        PlanError: A layer's option was not profiled.
    """
    options = {(option.weight_bits, option.activation_bits): j for j, option in enumerate(profile.options)}
    choice = np.empty(len(order), dtype=np.int64)
    for layer, index in zip(plan.layers, order, strict=True):
        option = options.get((layer.weight_bits, layer.activation_bits))
        if option is None or not profile.available[index, option]:
            width = f"{layer.weight_bits} bits"
            if layer.activation_bits:
                width += f" with an input of {layer.activation_bits}"
            raise PlanError(f"layer {layer.name}: the profile has no {width} for it; profile that width too")
        choice[index] = option
    return choice
