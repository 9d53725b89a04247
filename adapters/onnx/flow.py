"""The part of a graph that turns its inputs into its outputs, in the order it is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as passes

from lampq.core.values.errors import AdapterError

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
_DROPOUT_TRAINING = 2  # The input of Dropout that says whether it is on.
_RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)
# Constants in bodies of control flow from this size on may be weights.
_HOISTED = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flow:
    """What a graph computes, from its inputs to its outputs.

    Attributes:
        model: The normalized model (see `normalize`).
        inputs: Inputs the caller must feed.
        outputs: Values to be given: the judged outputs, or inner tensors in their place.
        nodes: Nodes that depend on an input and that an output of the graph depends on, or one of `outputs`, in
            graph order.
        reads: The values each of these nodes reads, those read inside its bodies (If, Loop) included.
        active: All values that depend on an input, the inputs and the values inside of bodies included.
        places: For each node inside of a body the node of the graph that the body belongs to.
    """

    model: ir.Model
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]
    reads: dict[ir.Node, tuple[ir.Value, ...]]
    active: frozenset[ir.Value]
    places: dict[ir.Node, ir.Node]

    def place(self, node: ir.Node) -> ir.Node:
        """Where a node stands in the graph: itself, or the node whose body it is in."""
        return self.places.get(node, node)


def normalize(model: ir.Model) -> ir.Model:
    """The same computation with functions inlined and constants lifted to initializers, changed in place.

    Weights are then always initializers of the main graph, whatever the exporter chose.
    """
    if model.functions:
        passes.InlinePass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=16)(model)
    passes.RemoveInitializersFromInputsPass()(model)
    _hoist(model)
    # Version 3 wanted initializers to be inputs too.
    model.ir_version = max(model.ir_version or 4, 4)
    return model


def trace(model: ir.Model, outputs: Sequence[str] | None = None) -> Flow:
    """Follow a normalized model from its inputs to its outputs.

    Args:
        model: The model.
        outputs: Names of the values to be given, outputs of the graph or inner tensors; None: all float outputs
            that depend on an input.

    Raises:
        AdapterError: No value is so called, or it depends on no input.
    """
    graph = model.graph
    reads = {node: (*(v for v in node.inputs if v is not None), *_captured(node)) for node in graph}
    active: set[ir.Value] = set(graph.inputs)
    _mark(graph, active)
    chosen = _chosen(graph, outputs, active)
    wanted: set[ir.Value] = {*graph.outputs, *chosen}
    nodes = []
    for node in reversed(graph):
        if any(value in wanted for value in node.outputs):
            wanted.update(reads[node])
            if any(value in active for value in node.outputs):
                nodes.append(node)
    _refuse_random(nodes)
    return Flow(
        model=model,
        inputs=tuple(graph.inputs),
        outputs=chosen,
        nodes=tuple(reversed(nodes)),
        reads=reads,
        active=frozenset(active),
        places={inner: node for node in graph for body in bodies(node) for inner in body.all_nodes()},
    )


def is_float(value: ir.Value) -> bool:
    """Whether a value is a float tensor, or of a type that is not known."""
    return isinstance(value.type, ir.TensorType | None) and (value.dtype is None or value.dtype in FLOATS)


def _refuse_random(nodes: list[ir.Node]) -> None:
    """Refuse nodes that compute something else at every run: damage could not be told from that.

    Raises:
        AdapterError: One draws random numbers.
    """
    for node in nodes:
        for inner in (node, *(n for body in bodies(node) for n in body.all_nodes())):
            name = inner.name or next((value.name for value in inner.outputs if value.name), "?")
            if inner.op_type in _RANDOM:
                raise AdapterError(
                    f"the model is random: {inner.op_type} {name} draws random numbers; export it without"
                )
            if inner.op_type == "Dropout" and _trains(inner):
                raise AdapterError(
                    f"the model is random: Dropout {name} is in training mode; export it for inference (model.eval())"
                )


def _trains(dropout: ir.Node) -> bool:
    """Whether a Dropout node is on, or may be: only a constant can tell that it is not."""
    value = dropout.inputs[_DROPOUT_TRAINING] if len(dropout.inputs) > _DROPOUT_TRAINING else None
    if value is None:
        return False
    while (
        (producer := value.producer()) is not None and producer.op_type == "Identity" and producer.inputs[0]
    ):
        value = producer.inputs[0]
    constant = ir.convenience.get_const_tensor(value)
    return constant is None or bool(constant.numpy().any())


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that a control flow operator runs."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _chosen(graph: ir.Graph, names: Sequence[str] | None, active: set[ir.Value]) -> tuple[ir.Value, ...]:
    if names is None:
        return tuple(dict.fromkeys(v for v in graph.outputs if is_float(v) and v in active))
    known = {v.name: v for v in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    for name in names:
        if name not in known:
            listed = ", ".join(v.name or "?" for v in graph.outputs)
            raise AdapterError(f"has no output or tensor {name!r}; its outputs are {listed}")
        if known[name] not in active:
            raise AdapterError(f"the tensor {name!r} depends on no input: it cannot be judged")
    return tuple(known[name] for name in names)


def _mark(graph: ir.Graph, active: set[ir.Value]) -> None:
    """Add the values that depend on an input, or on chance, those inside of bodies included."""
    for node in graph:
        inner = list(bodies(node))
        for body in inner:
            active.update(body.inputs)
            _mark(body, active)
        read = [*node.inputs, *(v for body in inner for n in body.all_nodes() for v in n.inputs)]
        read += [v for body in inner for v in body.outputs]
        if node.op_type in _RANDOM or any(value in active for value in read if value is not None):
            active.update(node.outputs)


def _captured(node: ir.Node) -> Iterator[ir.Value]:
    """Values of the node's own graph that its bodies read."""
    for body in bodies(node):
        inner = [value for n in body.all_nodes() for value in n.inputs]
        yield from (v for v in (*inner, *body.outputs) if v is not None and v.graph is node.graph)


def _hoist(model: ir.Model) -> None:
    """Move large float constants of bodies to the main graph, which bodies may read."""
    main = model.graph
    inner = [graph for graph in model.graphs() if graph is not main]
    if not inner:
        return
    used = {value.name for graph in model.graphs() for value in graph.initializers.values()}
    used |= {value.name for node in main.all_nodes() for value in node.outputs}
    for graph in inner:
        for name, value in tuple(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or tensor.dtype not in FLOATS or tensor.size < _HOISTED:
                continue
            if value.is_graph_output():
                continue
            del graph.initializers[name]
            if name in main.initializers or sum(name in g.initializers for g in inner):
                value.name = _unused(name, used)
            main.register_initializer(value)


def _unused(name: str, used: set[str | None]) -> str:
    number = 1
    while (fresh := f"{name}.{number}") in used:
        number += 1
    used.add(fresh)
    return fresh
