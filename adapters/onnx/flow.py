"""The part of a graph that turns the input into the logits, in the order it is computed."""

from __future__ import annotations

from collections.abc import Iterator
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flow:
    """What a graph computes, from its input to its logits.

    Attributes:
        model: The normalized model (see `normalize`).
        inputs: Inputs the caller must feed.
        output: The value taken as logits.
        nodes: Nodes that depend on an input and that the output depends on, in graph order.
        reads: The values each of these nodes reads, those read inside its bodies (If, Loop) included.
        active: All values that depend on an input, the inputs included.
    """

    model: ir.Model
    inputs: tuple[ir.Value, ...]
    output: ir.Value
    nodes: tuple[ir.Node, ...]
    reads: dict[ir.Node, tuple[ir.Value, ...]]
    active: frozenset[ir.Value]

    @property
    def log_probabilities(self) -> bool:
        """Whether the output is a softmax, so that its logarithm stands for the logits."""
        producer = self.output.producer()
        return producer is not None and producer.op_type == "Softmax"


def normalize(model: ir.Model) -> ir.Model:
    """The same computation with functions inlined and constants lifted to initializers, changed in place.

    Weights are then always initializers of a graph, whatever the exporter chose.
    """
    if model.functions:
        passes.InlinePass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=16)(model)
    passes.RemoveInitializersFromInputsPass()(model)
    # Version 3 wanted initializers to be inputs too.
    model.ir_version = max(model.ir_version or 4, 4)
    return model


def trace(model: ir.Model, output: str | None = None) -> Flow:
    """Follow a normalized model from its inputs to its logits.

    Args:
        model: The model.
        output: Name of the output that holds the logits; None chooses one (see `choose_output`).

    Raises:
        AdapterError: There is no input, no output fit to be logits, or the output is random.
    """
    graph = model.graph
    chosen = choose_output(graph, output)
    inputs = tuple(graph.inputs)
    reads = {node: (*(v for v in node.inputs if v is not None), *_captured(node)) for node in graph}
    active: set[ir.Value] = set(inputs)
    for node in graph:
        if node.op_type in _RANDOM or any(value in active for value in reads[node]):
            active.update(node.outputs)
    wanted = {chosen}
    nodes = []
    for node in reversed(graph):
        if any(value in wanted for value in node.outputs):
            wanted.update(reads[node])
            if any(value in active for value in node.outputs):
                nodes.append(node)
    if chosen not in active:
        raise AdapterError(
            f"the output {chosen.name} does not depend on any input; name another with output="
        )
    _refuse_random(nodes)
    return Flow(
        model=model,
        inputs=inputs,
        output=chosen,
        nodes=tuple(reversed(nodes)),
        reads=reads,
        active=frozenset(active),
    )


def _refuse_random(nodes: list[ir.Node]) -> None:
    """Refuse nodes that compute something else at every run: damage could not be told from that.

    Raises:
        AdapterError: One draws random numbers.
    """
    for node in nodes:
        for inner in (node, *(n for body in _bodies(node) for n in body.all_nodes())):
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


def choose_output(graph: ir.Graph, name: str | None) -> ir.Value:
    """The output that holds the logits: the named one, else `logits`, else the first float one of two axes.

    Raises:
        AdapterError: No output is so called, or none fits.
    """
    outputs = list(graph.outputs)
    listed = ", ".join(f"{v.name} {v.shape if v.shape is not None else '?'}" for v in outputs) or "none"
    floats = [v for v in outputs if v.dtype is None or v.dtype in FLOATS]
    for value in floats:
        if value.name == (name or "logits"):
            return value
    if name is not None:
        raise AdapterError(f"no float output is called {name!r}; the outputs are {listed}")
    fitting = [v for v in floats if v.shape is not None and _has_two_axes(v.shape)]
    if fitting:
        return fitting[0]
    unknown = [v for v in floats if v.shape is None]
    if len(floats) == len(unknown) == 1:
        return unknown[0]
    raise AdapterError(
        f"no output looks like logits (samples, classes); name one with output= among {listed}"
    )


def _has_two_axes(shape: ir.Shape) -> bool:
    return len(shape) >= 2 and all(d == 1 for d in shape.dims[2:])


def _captured(node: ir.Node) -> Iterator[ir.Value]:
    """Values of the node's own graph that its bodies read."""
    for body in _bodies(node):
        inner = [value for n in body.all_nodes() for value in n.inputs]
        yield from (v for v in (*inner, *body.outputs) if v is not None and v.graph is node.graph)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """Graphs that are attributes of a node: the bodies of If, Loop and Scan."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()
