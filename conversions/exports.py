"""A plan out to another tool."""

from __future__ import annotations

from typing import Any

from lampq.conversions import find
from lampq.conversions.entry import AnyLayer, Entry, Format, NoPlaceError
from lampq.conversions.target import Target
from lampq.core.values.blocks import row_block
from lampq.core.values.errors import PlanError
from lampq.core.values.messages import listed
from lampq.core.values.plan import Plan

KEPT = "foreign"
"""Under this name a plan's provenance holds, by tool, what a configuration said beyond widths."""


def export(plan: Plan, tool: str, target: Target, *, partial: bool = False) -> str:
    """The text of a configuration that gives every layer its width.

    Args:
        plan: Widths, by the names of the target's layers.
        tool: One of `FORMATS`.
        target: The model it is for.
        partial: Leave out layers that the tool has no place for.

    Raises:
        PlanError: The tool cannot express the plan; names the layers.
    """
    form = find(tool)
    layers = {layer.name: layer for layer in target.layers}
    entries, homeless, wrong = [], [], []
    for decision in plan.layers:
        layer = layers.get(decision.name)
        if layer is None:
            raise PlanError(f"the plan is for another model: {target.label} has no layer {decision.name}")
        try:
            addresses = form.addresses(layer, target)
        except NoPlaceError as err:
            homeless.append(f"{layer.name}: {err}")
            continue
        if decision.weight_bits not in weight_bits(form, layer, target):
            wrong.append(f"{layer.name} {decision.weight_bits} bits")
        if decision.activation_bits not in form.ACTIVATION_BITS:
            width = "float" if decision.activation_bits is None else f"{decision.activation_bits} bits"
            wrong.append(f"input of {layer.name} {width}")
        if decision.rank:
            wrong.append(f"{layer.name} factors of rank {decision.rank}")
        block = row_block(layer.shape, getattr(layer, "channel_axis", 0), plan.block)
        if block is not None and not form.BLOCKS:
            wrong.append(f"{layer.name} scales of {block} weights")
        entries.append(
            Entry(
                layer=layer,
                addresses=addresses,
                weight_bits=decision.weight_bits,
                activation_bits=decision.activation_bits,
                block=block,
            )
        )
    if wrong:
        widths = ", ".join(map(str, form.WEIGHT_BITS))
        raise PlanError(
            f"{form.TITLE} has weights of {widths} bits and cannot express {listed(wrong, separator='; ')}; "
            f"pass --fit --profile PROFILE to solve again within what it can"
        )
    if homeless and not partial:
        raise PlanError(
            f"{form.TITLE} has no place for {len(homeless)} layers ({listed(homeless, separator='; ')}); "
            f"pass --partial to leave them out"
        )
    if not entries:
        raise PlanError(
            f"{form.TITLE} has no place for any layer of the plan ({listed(homeless, separator='; ')})"
        )
    unknown: dict[str, Any] = dict(plan.provenance.get(KEPT, {}).get(tool, {}))
    return form.write(entries, target, unknown)


def weight_bits(form: Format, layer: AnyLayer, target: Target) -> tuple[int, ...]:
    """Widths that a tool offers for a layer."""
    special = getattr(form, "weight_bits", None)
    return form.WEIGHT_BITS if special is None else special(layer, target)
