"""Find the quantizable weights of a graph, and say why the others are left alone."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from lampq.adapters.onnx import naming
from lampq.adapters.onnx.flow import FLOATS, Flow
from lampq.adapters.onnx.weights import Slot, match, places
from lampq.core.values.layer import SMALLEST, worth_quantizing

_CHAIN = ("Transpose", "Identity", "Cast")
_HARMLESS = ("Shape", "Size")
# Types that hold quantized weights. Older versions of onnx_ir lack some of the small ones.
_CODES = frozenset(
    getattr(ir.DataType, name)
    for name in ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")
    if hasattr(ir.DataType, name)
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Use:
    """One operator that takes a weight.

    Attributes:
        node: The operator.
        index: The input of it that the weight comes in by.
        chain: Transpose, Identity and Cast nodes between the initializer and the operator, in this order.
        slot: How the operator reads it; its axes are those of the weight after the chain.
        path: Module path of the operator's place.
    """

    node: ir.Node
    index: int
    chain: tuple[ir.Node, ...]
    slot: Slot
    path: str

    @property
    def activation(self) -> ir.Value:
        """The value that the operator combines with the weight."""
        value = self.node.inputs[self.slot.data]
        assert value is not None  # Sites are only made of nodes whose activation is computed.
        return value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """A quantizable weight and where it stands in the graph.

    Attributes:
        name: Layer name, unique in the model.
        weight: The initializer that stores it.
        shape: Shape of the stored array.
        channel_axis: Axis of the stored array that holds the output channels.
        in_features: Weights that enter one output value.
        uses: Operators that take it, in graph order but products before lookups; several where it is shared.
    """

    name: str
    weight: ir.Value
    shape: tuple[int, ...]
    channel_axis: int
    in_features: int
    uses: tuple[Use, ...]

    @property
    def dtype(self) -> ir.DataType:
        """Type of the stored array."""
        stored = self.weight.const_value
        assert stored is not None  # Sites are only made of initializers.
        return stored.dtype

    @property
    def form(self) -> str:
        """`linear`, `conv`, `conv_transpose` or `lookup`."""
        return self.uses[0].slot.form

    @property
    def shares(self) -> tuple[str, ...]:
        """Paths of the places after the first that use the same weight."""
        return tuple(use.path for use in self.uses[1:])


def find(flow: Flow, *, embeddings: bool = False) -> tuple[tuple[Site, ...], tuple[tuple[str, str], ...]]:
    """The quantizable weights of a normalized graph.

    Args:
        flow: The graph.
        embeddings: Whether embedding tables count.

    Returns:
        The sites in the order the graph uses them, and (name, reason) of every weight left alone.
    """
    relevant = set(flow.nodes)
    found: dict[ir.Value, list[Use]] = {}
    refused: dict[ir.Value, tuple[str, str]] = {}
    for node in flow.model.graph:
        for index in places(node):
            value = node.inputs[index]
            if value is None or value in flow.active or not _has_activation(flow, node, index):
                continue
            origin, chain = _origin(value)
            path = naming.weight_path(node, origin)
            outcome = _judge(origin, chain, node, index)
            if isinstance(outcome, Slot) and node not in relevant:
                outcome = f"does not influence the output {flow.output.name}"
            if isinstance(outcome, str):
                refused.setdefault(origin, (path, outcome))
            elif outcome is not None:
                use = Use(node=node, index=index, chain=chain, slot=outcome, path=path)
                found.setdefault(origin, []).append(use)
    for name, reason, value in _in_bodies(flow):
        refused.setdefault(value, (name, reason))
    for value, uses in found.items():
        other = _other_use(value, {use.node for use in uses})
        if other is not None:
            refused.setdefault(value, (uses[0].path, f"also used by {other}"))
        elif all(use.slot.form == "lookup" for use in uses) and not embeddings:
            # A table tied to the head is a weight of the head, and stays.
            reason = "an embedding table; ask for it with embeddings=True"
            refused.setdefault(value, (uses[0].path, reason))
    kept = [(value, uses) for value, uses in found.items() if value not in refused]
    paths = [uses[0].path for _, uses in kept]
    features = [(n := uses[0].slot.in_features, _size(value) // max(n, 1)) for value, uses in kept]
    names = naming.distinguish(naming.complete(paths, features))
    sites = tuple(_site(name, value, uses) for name, (value, uses) in zip(names, kept, strict=True))
    return sites, tuple(dict.fromkeys(refused.values()))


def _site(name: str, value: ir.Value, uses: list[Use]) -> Site:
    # Where a table is both looked up and multiplied by, the product says which axis is the channel.
    first = next((use for use in uses if use.slot.form != "lookup"), uses[0])
    axis = first.slot.channel_axis
    for node in reversed(first.chain):
        if node.op_type == "Transpose":
            axis = _permutation(node, len(_shape(value)))[axis]
    ordered = (first, *(use for use in uses if use is not first))
    return Site(
        name=name,
        weight=value,
        shape=_shape(value),
        channel_axis=axis,
        in_features=first.slot.in_features,
        uses=ordered,
    )


def _has_activation(flow: Flow, node: ir.Node, index: int) -> bool:
    """Whether some other input of the node is computed: otherwise the node itself is a constant."""
    return any(value in flow.active for i, value in enumerate(node.inputs) if i != index)


def _origin(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """The value a weight starts from, and the layout nodes between."""
    chain: list[ir.Node] = []
    while (node := value.producer()) is not None and node.op_type in _CHAIN and node.inputs[0] is not None:
        chain.append(node)
        value = node.inputs[0]
    return value, tuple(reversed(chain))


def _judge(origin: ir.Value, chain: tuple[ir.Node, ...], node: ir.Node, index: int) -> Slot | str | None:
    """The slot a constant fills, why it is left alone, or None where it is no weight at all."""
    producer = origin.producer()
    if producer is not None:
        if node.op_type == "Gather":
            return None
        return "already quantized" if _dequantizes(producer) else f"computed by {producer.op_type}"
    if origin.const_value is None:
        return "without data" if node.op_type != "Gather" else None
    if node.op_type == "Gather" and (origin.dtype not in FLOATS or len(_shape(origin)) < 2):
        return None
    if origin.dtype not in FLOATS:
        return "already quantized"
    casts = [
        c.outputs[0].dtype or ir.DataType(c.attributes["to"].as_int()) for c in chain if c.op_type == "Cast"
    ]
    if any(dtype not in FLOATS for dtype in casts):
        return "cast to integers"
    shape = _shape(origin)
    if len(shape) < 2:
        return None
    for step in chain:
        if step.op_type == "Transpose":
            shape = tuple(shape[a] for a in _permutation(step, len(shape)))
    outcome = match(node, index, shape)
    if isinstance(outcome, Slot) and not worth_quantizing(shape):
        return f"only {origin.const_value.size} weights"
    return outcome


def _dequantizes(node: ir.Node) -> bool:
    """Whether a constant comes out of a dequantization: the operator, or arithmetic on small integers."""
    seen: set[ir.Node] = set()
    stack = [node]
    while stack:
        node = stack.pop()
        if node.op_type == "DequantizeLinear":
            return True
        seen.add(node)
        for value in node.inputs:
            if value is None:
                continue
            tensor, producer = value.const_value, value.producer()
            if tensor is not None and tensor.dtype in _CODES and tensor.size >= SMALLEST // 8:
                return True
            if producer is not None and producer not in seen:
                stack.append(producer)
    return False


def _other_use(value: ir.Value, known: set[ir.Node]) -> str | None:
    """An operator that reads the weight in a way no slot describes."""
    if value.is_graph_output():
        return "an output of the model"
    for node, _ in value.uses():
        if node in known or node.op_type in _HARMLESS:
            continue
        if node.graph is not value.graph:
            return "the body of a control flow operator"
        if node.op_type not in _CHAIN:
            return node.op_type
        found = _other_use(node.outputs[0], known)
        if found is not None:
            return found
    return None


def _in_bodies(flow: Flow) -> list[tuple[str, str, ir.Value]]:
    """Weights that operators inside If, Loop and Scan bodies take: which run, and how often, is not known."""
    found = []
    for node in flow.model.graph.all_nodes():
        if node.graph is flow.model.graph:
            continue
        for index in places(node):
            value = node.inputs[index]
            if value is None or node.op_type == "Gather":
                continue
            origin, _ = _origin(value)
            if origin.const_value is not None and origin.dtype in FLOATS and len(_shape(origin)) >= 2:
                reason = f"inside the body of a {_owner(flow.model.graph, node.graph)}"
                found.append((naming.weight_path(node, origin), reason, origin))
    return found


def _owner(graph: ir.Graph, body: ir.Graph | ir.Function | None) -> str:
    """The operator that a body belongs to."""
    for node in graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH and attribute.value is body:
                return node.op_type
    return "control flow operator"


def _permutation(node: ir.Node, rank: int) -> tuple[int, ...]:
    attribute = node.attributes.get("perm")
    return tuple(reversed(range(rank))) if attribute is None else tuple(attribute.as_ints())


def _size(value: ir.Value) -> int:
    tensor = value.const_value
    return 0 if tensor is None else int(tensor.size)


def _shape(value: ir.Value) -> tuple[int, ...]:
    tensor = value.const_value
    return () if tensor is None else tuple(int(d) for d in tensor.shape.numpy())
