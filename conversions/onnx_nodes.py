"""What ONNX tools call a layer: the nodes that take its weight, or the initializer that stores it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from lampq.adapters import format_named
from lampq.adapters.format import NODES
from lampq.conversions.entry import AnyLayer, NoPlaceError
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError

if TYPE_CHECKING:
    from lampq.adapters.onnx.backend import OnnxModel
    from lampq.adapters.onnx.sites import Site


def site(layer: AnyLayer, target: Target) -> Site:
    """Where a layer stands in the graph.

    Raises:
        PlanError: The model is no ONNX model, or there is none.
    """
    model = target.model
    if model is None or format_named(model.format).addresses != NODES:
        raise PlanError("this configuration names nodes or tensors of an ONNX file; give it with --model")
    return next(s for s in cast("OnnxModel", model).variant.opened.sites if s.name == layer.name)


def node_names(layer: AnyLayer, target: Target, *operators: str) -> tuple[str, ...]:
    """Names of the nodes that take a layer's weight.

    Raises:
        NoPlaceError: A node is of another operator, has no name, or reads the weight through others.
    """
    names = []
    for use in site(layer, target).uses:
        if use.node.op_type not in operators:
            raise NoPlaceError(f"an operator {use.node.op_type}, no {' or '.join(operators)}")
        if not use.node.name:
            raise NoPlaceError("its node has no name")
        if use.chain:
            raise NoPlaceError(f"its node reads the weight through {use.chain[-1].op_type}")
        names.append(use.node.name)
    return tuple(names)


def initializer(layer: AnyLayer, target: Target) -> str:
    """The name of the tensor that stores a layer's weight.

    Raises:
        NoPlaceError: It has none.
    """
    name = site(layer, target).weight.name
    if not name:
        raise NoPlaceError("its weight has no name")
    return name
