"""From a profile and budgets to a solver's problem, and from its answer back to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lampq.core.allocating.allowed import allowed_options, tied_layers
from lampq.core.allocating.limits import BYTES, Limit, limits_of
from lampq.core.allocating.shared import narrowest, needed_by, without_more
from lampq.core.allocating.smallest import limited
from lampq.core.measuring.setting import input_range
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError
from lampq.core.values.option_order import cover_table
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.plan_product import PlanProduct
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile


def build_problem(
    profile: Profile,
    cost: np.ndarray,
    budget: Budget | None,
    *,
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
) -> Problem:
    """The optimization problem of a profile under a budget.

    Args:
        profile: L layers, J options.
        cost: Predicted damage, nats, shape (L, J).
        budget: Limits; None sets none. A largest KL is left to the search (`core.allocating.smallest`), which needs
            the bytes as a resource: they are added, limited to what the largest options take, as they are without
            any limit.
        pins: `PATTERN=BITS` texts; a later one overrides an earlier one.
        ties: Patterns whose layers take one option together.

    Raises:
        BudgetError: A limit lies below what the cheapest allowed options take, and names that floor; or rules
            about single layers leave one without an option.
        PlanError: A pattern matches nothing, or pins a width that was not profiled.
    """
    allowed = allowed_options(profile, budget, pins=pins, ties=ties)
    single = allowed.sum(axis=1) == 1
    free, limits = _unlimited(profile, cost, budget, allowed, ties)
    if BYTES in free.resource_names and profile.shared_bytes(allowed):
        resource = free.resource_names.index(BYTES)
        if int(free.floors()[resource]) > limits[resource].most:
            # What all options share leaves no room: those are left that need no more than the narrowest plan.
            parts = needed_by(profile, narrowest(free, resource))
            free, limits = _unlimited(profile, cost, budget, without_more(profile, allowed, parts), ties)
    held = int((single & (profile.available.sum(axis=1) > 1)).sum())
    for limit, floor in zip(limits, free.floors().tolist(), strict=True):
        if floor > limit.most:
            raise BudgetError(
                f"{limit.asked} is below the floor of {limit.show(floor)}"
                f"{f' with {held} layers held at one width' if held else ''}; "
                f"ask for more, profile narrower widths, or pin less"
            )
    return replace(free, limits=np.array([limit.most for limit in limits], dtype=np.int64))


def _unlimited(
    profile: Profile, cost: np.ndarray, budget: Budget | None, allowed: np.ndarray, ties: Sequence[str]
) -> tuple[Problem, list[Limit]]:
    """The problem before its limits, and these."""
    limits = limits_of(profile, budget, allowed)
    if budget is None or not limits or (budget.max_kl is not None and budget.size_bytes is None):
        limits.append(_no_limit(profile, allowed))
    single = allowed.sum(axis=1) == 1
    problem = Problem.build(
        cost=np.where(allowed, cost, np.inf),
        resources=np.stack([limit.use for limit in limits]),
        limits=None,
        resource_names=[limit.name for limit in limits],
        layer_names=[place.name for place in profile.places],
        ties=[group for _, group in tied_layers(profile, ties)],
        pins={layer: int(allowed[layer].argmax()) for layer in np.flatnonzero(single).tolist()},
    )
    return problem, limits


def uniform_choice(profile: Profile, problem: Problem, *, size_bytes: int | None = None) -> np.ndarray | None:
    """Options of the best uniform plan within the limits, shape (L,), or None if not even the narrowest fits.

    A layer that cannot take the uniform option (the format, a pin, a tie, a floor) takes the next wider one that
    it can, or else its widest. With one input width the best is the widest; with several it is the one of least
    predicted damage. Uniform plans have no factors of low rank.

    Args:
        profile: Measurements of the model.
        problem: Limits, ties, pins and allowed options.
        size_bytes: The most that the whole model may take, in place of the problem's limit in bytes, which may set
            aside what options share that a uniform plan does not need.
    """
    if size_bytes is not None and BYTES in problem.resource_names:
        resource = problem.resource_names.index(BYTES)
        problem = limited(problem, int(problem.resources[resource].max(axis=1).sum()), resource)
    reduction = problem.reduced()
    allowed = np.isfinite(reduction.problem.cost)
    best, least = None, np.inf
    covers = cover_table(profile.options)
    for index in reversed([index for index, option in enumerate(profile.options) if not option.rank]):
        row = covers[:, index]
        wider = allowed & row
        widest = allowed.shape[1] - 1 - allowed[:, ::-1].argmax(axis=1)
        choice = reduction.expand(np.where(wider.any(axis=1), wider.argmax(axis=1), widest))
        damage = problem.objective(choice)
        fits = size_bytes is None or profile.total_bytes(choice) <= size_bytes
        if damage < least and fits and (problem.usage(choice) <= problem.limits).all():
            best, least = choice, damage
    return best


def build_plan(
    profile: Profile,
    choice: Sequence[int] | np.ndarray,
    *,
    mode: str,
    budget: Mapping[str, Any],
    cost: np.ndarray | None = None,
    why: Sequence[str] = (),
) -> Plan:
    """The plan that takes option `choice[i]` for layer i: widths and bytes, without what is known of it as a whole.

    Args:
        profile: L layers, J options.
        choice: Option indices, shape (L,).
        mode: Score that made it.
        budget: What was asked for.
        cost: Damage per option in nats, shape (L, J), for the per-layer figures; None leaves them out.
        why: A sentence per layer, or nothing.
    """
    layers = []
    for index, (layer, option_index) in enumerate(
        zip(profile.layers, np.asarray(choice).tolist(), strict=False)
    ):
        option = profile.options[option_index]
        layers.append(
            PlanLayer.of(
                layer,
                weight_bits=option.weight_bits,
                rank=option.rank,
                activation_bits=option.activation_bits,
                activation_range=input_range(profile, index, option_index),
                quantizer=profile.quantizer(layer.name, option.activation_bits),
                payload_bytes=int(profile.payload_bytes[index, option_index]),
                predicted_kl=None if cost is None else float(cost[index, option_index]),
                why=why[index] if why else "",
            )
        )
    return Plan(
        layers=tuple(layers),
        products=_products(profile, np.asarray(choice).tolist(), cost, why),
        rewrites=profile.rewrites,
        mode=mode,
        budget=dict(budget),
        container=profile.container,
        block=profile.block,
        rounding=profile.rounding,
        rest_bytes=profile.rest_of(np.asarray(choice)),
        kept=profile.kept,
        provenance=profile.provenance,
    )


def _products(
    profile: Profile, choice: Sequence[int], cost: np.ndarray | None, why: Sequence[str]
) -> tuple[PlanProduct, ...]:
    decisions = []
    for index, product in enumerate(profile.products, start=len(profile.layers)):
        option = profile.options[choice[index]]
        decisions.append(
            PlanProduct(
                product=product,
                left=profile.quantizer(product.left, option.weight_bits),
                right=profile.quantizer(product.right, option.activation_bits),
                predicted_kl=None if cost is None else float(cost[index, choice[index]]),
                why=why[index] if why else "",
            )
        )
    return tuple(decisions)


def _no_limit(profile: Profile, allowed: np.ndarray) -> Limit:
    use = np.where(allowed, profile.stored_bytes, 0)
    return Limit(name=BYTES, use=use, most=int(use.max(axis=1).sum()), asked="", show=str)
