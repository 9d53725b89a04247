"""Find the quantizable weights of a graph, and say why the others are left alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import naming
from lampq.adapters.onnx.flow import FLOATS, Flow
from lampq.adapters.onnx.integer_operators import OPERATORS as INTEGER_OPERATORS
from lampq.adapters.onnx.weights import RECURRENT, SMALLEST_TABLE, TAPPED, Slot, elsewhere, match, places
from lampq.core.values.layer import SMALLEST, worth_quantizing

# Beyond, a constant is no weight but a mask, or a number that stands for infinity.
_LARGEST = 2.0**28

_READ_AS_FLOATS = "; --requantize reads it as floats"
_CHAIN = ("Transpose", "Identity", "Cast")
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
        chain: Transpose, Identity and Cast nodes between the initializer and the operator, in this order; where
            other constants are mixed in on the way (form `other`), none are named.
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
        uses: Operators that take it, in graph order but products first; several where it is shared.
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
        """The form of its first use, see `weights.Slot`."""
        return self.uses[0].slot.form

    @property
    def reads_input(self) -> bool:
        """Whether any use multiplies an input that can be rounded: no table that is looked up or added has one."""
        return any(use.slot.form in TAPPED for use in self.uses)

    @property
    def shares(self) -> tuple[str, ...]:
        """Paths of the places after the first that use the same weight."""
        return tuple(use.path for use in self.uses[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A weight that is left alone.

    Attributes:
        name: Path of the place that uses it.
        reason: Why.
        size_bytes: What it takes in the file; 0 where it is made of others.
    """

    name: str
    reason: str
    size_bytes: int


def find(flow: Flow, *, embeddings: bool = True) -> tuple[tuple[Site, ...], tuple[Left, ...]]:
    """The quantizable weights of a normalized graph.

    Args:
        flow: The graph.
        embeddings: Whether tables that are only looked up count.

    Returns:
        The sites in the order the graph uses them, and every weight that is left alone.
    """
    relevant = set(flow.nodes)
    uses: dict[ir.Value, list[Use]] = {}
    refused: dict[ir.Value, Left] = {}
    for node in flow.model.graph.all_nodes():
        if not any(value in flow.active for value in node.outputs):
            continue
        for index in _order(node):
            value = node.inputs[index]
            if value is None or value in flow.active or not _reads_data(flow, node, index):
                continue
            for origin, chain, outcome in _constants_behind(flow, value, node, index):
                path = naming.weight_path(node, origin)
                if isinstance(outcome, Slot) and flow.place(node) not in relevant:
                    outcome = "does not influence any output"
                if isinstance(outcome, str):
                    refused.setdefault(origin, _left(origin, path, outcome))
                else:
                    use = Use(node=node, index=index, chain=chain, slot=outcome, path=path)
                    uses.setdefault(origin, []).append(use)
    chosen = []
    for value, own in uses.items():
        reason = _objection(value, own, embeddings)
        if reason:
            refused[value] = _left(value, own[0].path, reason)
        else:
            # What one operator has no form for, another may have.
            refused.pop(value, None)
            chosen.append((value, own))
    paths = [own[0].path for _, own in chosen]
    features = [(n := own[0].slot.in_features, _size(value) // max(n, 1)) for value, own in chosen]
    names = naming.distinguish(naming.complete(paths, features))
    sites = tuple(_site(name, value, own) for name, (value, own) in zip(names, chosen, strict=True))
    return sites, tuple(dict.fromkeys(refused.values()))


def not_understood(left: tuple[Left, ...]) -> tuple[Left, ...]:
    """What is left alone after all has been read as floats that could be: its reasons offer that no more."""
    return tuple(
        dataclasses.replace(
            each, reason=each.reason.replace(_READ_AS_FLOATS, " in a way that is not understood")
        )
        for each in left
    )


def _left(value: ir.Value, path: str, reason: str) -> Left:
    tensor = value.const_value
    return Left(name=path, reason=reason, size_bytes=0 if tensor is None else int(tensor.nbytes))


def _objection(value: ir.Value, uses: list[Use], embeddings: bool) -> str:
    """Why a constant that operators take is left alone nevertheless, or empty."""
    forms = {use.slot.form for use in uses}
    if value.is_graph_output():
        return "also used by an output of the model"
    if forms <= {"lookup", "other"}:
        if _size(value) < SMALLEST_TABLE:
            return f"a table of only {_size(value)} numbers"
        if forms == {"lookup"} and not embeddings:
            return "an embedding table, which was not asked for"
    if forms == {"other"} and not _is_moderate(value):
        return "a mask: it holds numbers that stand for infinity"
    return ""


def _site(name: str, value: ir.Value, uses: list[Use]) -> Site:
    # Where a table is both looked up and multiplied by, the product says which axis is the channel.
    rank = {"other": 2, "lookup": 1}
    first = min(uses, key=lambda use: rank.get(use.slot.form, 0))
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


def _order(node: ir.Node) -> tuple[int, ...]:
    """Indices of all inputs, those that usually take a weight first."""
    usual = places(node)
    return (*usual, *(i for i in range(len(node.inputs)) if i not in usual))


def _reads_data(flow: Flow, node: ir.Node, index: int) -> bool:
    """Whether some other input of the node is computed, or what its bodies read."""
    others = (value for i, value in enumerate(node.inputs) if i != index)
    return any(value in flow.active for value in others)


def _constants_behind(
    flow: Flow, value: ir.Value, node: ir.Node, index: int
) -> Iterator[tuple[ir.Value, tuple[ir.Node, ...], Slot | str]]:
    """The constants that an input of a node is made of, with the layout nodes between, and what they are to it."""
    origin, chain = _origin(value)
    producer = origin.producer()
    if producer is None:
        outcome = _judge(flow, origin, chain, node, index)
        if outcome is not None:
            yield origin, chain if index in places(node) else (), outcome
    elif dequantizes(producer):
        # A small table of codes may be anything.
        if index in places(node) and node.op_type != "Gather":
            yield origin, (), f"already quantized{_READ_AS_FLOATS}"
    else:
        for constant in _leaves(producer):
            if constant.dtype in FLOATS and len(_shape(constant)) > 1 and _size(constant) >= SMALLEST_TABLE:
                yield constant, (), elsewhere(node, index, _shape(constant), flow.active)


def _leaves(producer: ir.Node) -> list[ir.Value]:
    """The initializers that a constant is computed from."""
    leaves: dict[ir.Value, None] = {}
    stack, seen = [producer], {producer}
    while stack:
        for value in stack.pop().inputs:
            if value is None:
                continue
            maker = value.producer()
            if maker is None:
                if value.const_value is not None:
                    leaves[value] = None
            elif maker not in seen:
                seen.add(maker)
                stack.append(maker)
    return list(leaves)


def _origin(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """The value a weight starts from, and the layout nodes between."""
    chain: list[ir.Node] = []
    while (node := value.producer()) is not None and node.op_type in _CHAIN and node.inputs[0] is not None:
        chain.append(node)
        value = node.inputs[0]
    return value, tuple(reversed(chain))


def _judge(
    flow: Flow, origin: ir.Value, chain: tuple[ir.Node, ...], node: ir.Node, index: int
) -> Slot | str | None:
    """The slot a constant fills, why it is left alone, or None where it is no weight at all."""
    usual = index in places(node) and node.op_type != "Gather"
    if origin.const_value is None:
        return "without data" if usual else None
    if origin.dtype not in FLOATS:
        known = node.op_type in INTEGER_OPERATORS or node.op_type == "MatMulNBits"
        hint = _READ_AS_FLOATS if known else f", for {node.op_type}"
        return f"already quantized{hint}" if usual else None
    casts = [
        c.outputs[0].dtype or ir.DataType(c.attributes["to"].as_int()) for c in chain if c.op_type == "Cast"
    ]
    if any(dtype not in FLOATS for dtype in casts):
        return "cast to integers" if usual else None
    shape, size = _shape(origin), _size(origin)
    if len(shape) < 2:
        return f"a bias or scale of {size} numbers" if size >= SMALLEST_TABLE else None
    if index not in places(node) and node.op_type.removeprefix("DynamicQuantize") in RECURRENT:
        return f"a bias or first state of {size} numbers" if size >= SMALLEST_TABLE else None
    if index not in places(node):
        return elsewhere(node, index, shape, flow.active) if size >= SMALLEST_TABLE else None
    for step in chain:
        if step.op_type == "Transpose":
            shape = tuple(shape[a] for a in _permutation(step, len(shape)))
    outcome = match(node, index, shape)
    if isinstance(outcome, Slot) and not worth_quantizing(shape):
        return f"only {size} weights" if usual else None
    return outcome


def dequantizes(node: ir.Node) -> bool:
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


def _is_moderate(value: ir.Value) -> bool:
    """Whether all numbers of a constant are finite and none stands for infinity."""
    tensor = value.const_value
    array = np.asarray(tensor.numpy() if tensor is not None else 0.0).astype(np.float32)
    return bool(np.isfinite(array).all() and np.abs(array).max(initial=0.0) < _LARGEST)


def _permutation(node: ir.Node, rank: int) -> tuple[int, ...]:
    attribute = node.attributes.get("perm")
    return tuple(reversed(range(rank))) if attribute is None else tuple(attribute.as_ints())


def _size(value: ir.Value) -> int:
    tensor = value.const_value
    return 0 if tensor is None else int(tensor.size)


def _shape(value: ir.Value) -> tuple[int, ...]:
    tensor = value.const_value
    return () if tensor is None else tuple(int(d) for d in tensor.shape.numpy())
