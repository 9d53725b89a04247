"""Plans of given widths, for writing a model without measuring it."""

from __future__ import annotations

from collections.abc import Mapping

from lampq.core.measuring.model import Model
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer

_WIDTHS = range(2, 9)


def widths_of(model: Model, container: str) -> dict[str, tuple[int, ...]]:
    """Layer name -> widths that the format can store it at, ascending."""
    return {
        layer.name: tuple(b for b in _WIDTHS if model.payload_bytes(layer, b, container) is not None)
        for layer in model.layers()
    }


def mixed_widths(model: Model, container: str) -> dict[str, int]:
    """Layer name -> a width, each layer another one as far as they go."""
    offered = {name: widths for name, widths in widths_of(model, container).items() if widths}
    return {name: widths[place % len(widths)] for place, (name, widths) in enumerate(offered.items())}


def plan_of_widths(
    model: Model,
    widths: Mapping[str, int],
    container: str = "bitplane",
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Plan:
    """A plan that gives layers these widths and leaves the others float.

    Args:
        model: The float model.
        widths: Layer name -> weight bits, which the format can store.
        container: How codes are stored.
        ranges: Layer name -> smallest and largest input; inputs of these layers get 8 bits.

    Raises:
        PlanError: No layer of the model is named.
    """
    layers = tuple(
        PlanLayer.of(
            layer,
            weight_bits=widths[layer.name],
            payload_bytes=model.payload_bytes(layer, widths[layer.name], container) or 0,
            activation_bits=8 if layer.name in (ranges or {}) else None,
            activation_range=(ranges or {}).get(layer.name),
        )
        for layer in model.layers()
        if layer.name in widths
    )
    rest_bytes = model.rest_bytes(activations=bool(ranges))
    return Plan(layers=layers, mode="uniform", budget={}, container=container, rest_bytes=rest_bytes)
