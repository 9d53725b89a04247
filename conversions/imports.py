"""A configuration of another tool in, as a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lampq.conversions import find
from lampq.conversions.entry import AnyLayer, NoPlaceError, Widths
from lampq.conversions.exports import KEPT
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError
from lampq.core.values.layer import Layer
from lampq.core.values.messages import listed
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer

MODE = "given"
"""Mode of a plan whose widths were read, not found."""


def import_plan(text: str, tool: str, target: Target, *, partial: bool = False) -> Plan:
    """The plan that a configuration stands for.

    Layers of the target that the configuration does not name stay float and are no part of the plan, which says so in
    a note. What the configuration says beyond widths is kept in the plan's provenance, and noted.

    Args:
        text: The configuration.
        tool: One of `FORMATS`.
        target: The model it is for.
        partial: Accept names that are none of the target's layers.

    Raises:
        PlanError: It is malformed, for another model, or says what no plan can.
    """
    form = find(tool)
    homes: dict[str, str] = {}
    for layer in target.layers:
        try:
            homes.update(dict.fromkeys(form.addresses(layer, target), layer.name))
        except NoPlaceError:
            continue
    foreign = form.read(text.removeprefix("\ufeff"), tuple(homes))
    if not foreign.widths:
        raise PlanError(
            f"the configuration is for another model: nothing it names is a layer of {target.label}"
            + (f" ({listed(foreign.strangers)})" if foreign.strangers else "")
        )
    if foreign.strangers and not partial:
        raise PlanError(
            f"{len(foreign.strangers)} names of the configuration are no layers of {target.label} "
            f"({listed(foreign.strangers)}); pass --partial to take the rest"
        )
    notes = [f"read from {form.TITLE}"]
    if foreign.strangers:
        notes.append(f"ignored, not in the model: {listed(foreign.strangers)}")
    if foreign.unknown:
        notes.append(f"kept, beyond widths: {listed(list(foreign.unknown))}")
    unknown = {KEPT: {tool: dict(foreign.unknown)}} if foreign.unknown else {}
    if len(foreign.blocks) > 1:
        sizes = ", ".join(map(str, sorted(foreign.blocks)))
        notes.append(f"left out: scales shared by {sizes} weights, of which a plan has one")
    block = next(iter(foreign.blocks)) if len(foreign.blocks) == 1 else None
    plan = given_plan(_by_layer(foreign.widths, homes), target.with_block(block), notes=notes)
    return dataclasses.replace(plan, provenance={**plan.provenance, **unknown})


def given_plan(widths: Mapping[str, Widths], target: Target, *, notes: Sequence[str]) -> Plan:
    """A plan of given widths by layer name; other layers of the target stay float."""
    floats = [layer.name for layer in target.layers if layer.name not in widths]
    if floats:
        notes = [*notes, f"{len(floats)} layers stay float: {listed(floats)}"]
    return Plan(
        layers=tuple(
            _decision(layer, widths[layer.name], target) for layer in target.layers if layer.name in widths
        ),
        mode=MODE,
        budget={},
        container=target.container,
        block=target.block,
        rest_bytes=target.rest_bytes,
        notes=tuple(notes),
        provenance={k: v for k, v in target.provenance.items() if k != KEPT},
    )


def _by_layer(widths: Mapping[str, Widths], homes: Mapping[str, str]) -> dict[str, Widths]:
    by_layer: dict[str, Widths] = {}
    for address, value in widths.items():
        layer = homes[address]
        if by_layer.setdefault(layer, value) != value:
            raise PlanError(
                f"the configuration gives layer {layer}, one weight in several places, different widths; "
                f"a weight has one"
            )
    return by_layer


def _decision(layer: AnyLayer, widths: Widths, target: Target) -> PlanLayer:
    bits, activation = widths
    span = None
    if activation is not None and isinstance(layer, PlanLayer):
        span = layer.activation_range
    elif activation is not None and isinstance(layer, Layer) and layer.activation is not None:
        span = float(layer.activation.min[0]), float(layer.activation.max[0])
    return PlanLayer.of(
        layer,
        weight_bits=bits,
        activation_bits=activation,
        activation_range=span,
        payload_bytes=target.payload_bytes(layer, bits),
    )
