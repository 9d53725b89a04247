"""The outputs of a graph, and the inner tensors that are judged in place of those behind a discontinuous operator.

A small change of a weight moves most values a little; the result of an operator such as ArgMax or NonMaxSuppression
stays or jumps. Outputs behind one are left alone, and the last float tensors in front of it stand for them. Where
weights come after it (a detector that refines its best candidates, a mixture of experts), the output is judged
itself: nothing else tells what these weights do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from lampq.adapters.onnx.flow import FLOATS, Flow, bodies, is_float
from lampq.adapters.onnx.inputs import is_next_state
from lampq.adapters.onnx.sites import Site
from lampq.core.readouts.vocabulary import SCALED_SIGMOID, SIGMOID
from lampq.core.values.output_spec import OutputSpec

# fmt: off
# Results jump, or are indices. Comparisons are not among them: behind most there is a Where that joins both sides.
_JUMPS = frozenset((
    "NonMaxSuppression", "TopK", "ArgMax", "ArgMin", "NonZero", "Unique", "Compress", "Round", "Floor",
    "Ceil", "OneHot", "Multinomial", "Hardmax", "EfficientNMS_TRT", "NonMaxSuppression_TRT",
))
# What a value is looked through to see what it is: other places, another type, the same numbers.
_SAME = frozenset((
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "CastLike", "Dropout",
    "Slice", "Gather", "Expand", "QuantizeLinear", "DequantizeLinear",
))
# fmt: on
# Results that do not depend on the values of the input, but on its shape alone.
_SHAPES = ("Shape", "Size")
_SCALING = ("Mul", "Div", "Add", "Sub")
_WITH_AXIS = ("Softmax", "LogSoftmax", "LpNormalization", "ArgMax", "Hardmax")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """What a graph gives.

    Attributes:
        specs: Its outputs in their order, then the inner tensors that stand for some of them.
        reasons: Why outputs are not judged, by name.
        jumping: Names of the outputs behind discontinuous operators.
    """

    specs: tuple[OutputSpec, ...]
    reasons: dict[str, str]
    jumping: frozenset[str]


def describe(flow: Flow, sites: Sequence[Site]) -> Outputs:
    """The outputs of a graph, and what stands for those that cannot be judged.

    Args:
        flow: The graph, with types inferred as far as they can be.
        sites: Its weights.
    """
    paths = _Paths(flow, sites)
    graph = flow.model.graph
    reasons = {}
    for value in dict.fromkeys(graph.outputs):
        reason = _obstacle(flow, paths, value)
        if reason:
            reasons[value.name or ""] = reason
    judged = {value for value in graph.outputs if value.name not in reasons}
    hidden = [v for v in dict.fromkeys(graph.outputs) if v.name in reasons and v in paths.moving]
    standing = paths.standing_for([v for v in hidden if not is_next_state(flow, v)], judged)
    specs = [spec_of(flow, value) for value in dict.fromkeys(graph.outputs)]
    specs += [spec_of(flow, value, stands_for=names) for value, names in standing.items()]
    jumping = frozenset(v.name or "" for v in graph.outputs if paths.jumped(v))
    return Outputs(specs=tuple(specs), reasons=reasons, jumping=jumping)


def spec_of(flow: Flow, value: ir.Value, *, stands_for: Sequence[str] = ()) -> OutputSpec:
    """The record of an output or an inner tensor."""
    producer, axis = _source(value)
    for node, _ in value.uses():
        # Classes run along the axis that the largest is looked for.
        if axis is None and stands_for and node.op_type == "ArgMax":
            axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    shape = _sample_shape(flow, value)
    if axis is not None and axis >= 0 and shape is not None and value.shape is not None:
        axis += len(shape) - len(value.shape)
    return OutputSpec(
        name=value.name or "",
        shape=shape,
        dtype=_dtype_name(value),
        producer=producer,
        # The first axis is that of the samples.
        axis=axis or None,
        stands_for=tuple(stands_for),
    )


def _obstacle(flow: Flow, paths: _Paths, value: ir.Value) -> str:
    """Why an output is not judged, or empty."""
    if not isinstance(value.type, ir.TensorType | None):
        return "no tensor"
    if not is_float(value):
        behind = paths.jumped(value)
        return f"{_dtype_name(value)} behind {behind}" if behind else f"holds {_dtype_name(value)}"
    if value not in flow.active:
        return "depends on no input"
    if value.shape is not None and 0 in value.shape.dims:
        return "empty"
    if is_next_state(flow, value):
        return "the next state, whose first axis is not that of the samples"
    behind = paths.jumped(value)
    return f"behind {behind}" if behind else ""


class _Paths:
    """Which values move with the weights, and which of them jump."""

    def __init__(self, flow: Flow, sites: Sequence[Site]) -> None:
        self._flow = flow
        self._at_weight = {flow.place(use.node) for site in sites for use in site.uses}
        self.moving: set[ir.Value] = set()
        self._jumps: dict[ir.Value, str] = {}
        for node in flow.nodes:
            read = flow.reads[node]
            moving = any(value in self.moving for value in read)
            if node in self._at_weight:
                self.moving.update(node.outputs)
                continue
            if node.op_type in _SHAPES and not any(value in self._jumps for value in read):
                continue
            if moving:
                self.moving.update(node.outputs)
            cause = next((self._jumps[value] for value in read if value in self._jumps), "")
            if not cause and moving and _jumps(node):
                cause = node.op_type
            if cause:
                self._jumps |= dict.fromkeys(node.outputs, cause)

    def jumped(self, value: ir.Value) -> str:
        """The discontinuous operator that a value is behind, or empty."""
        return self._jumps.get(value, "")

    def standing_for(self, outputs: Sequence[ir.Value], judged: set[ir.Value]) -> dict[ir.Value, list[str]]:
        """The last float tensors that move with the weights before outputs that jump or are no floats.

        Those that are functions of the others, or of judged outputs, are left out.

        Returns:
            The tensors, each with the names of the outputs that it stands for.
        """
        fronts = {output: self._front(output) for output in outputs}
        stand_ins = set().union(*fronts.values()) - judged
        for value in list(dict.fromkeys(v for front in fronts.values() for v in front)):
            if value in stand_ins and self._follows(value, (stand_ins - {value}) | judged):
                stand_ins.remove(value)
        standing: dict[ir.Value, list[str]] = {}
        for output in outputs:
            for value in self._sources(output, stand_ins):
                standing.setdefault(value, []).append(output.name or "")
        return standing

    def _sources(self, value: ir.Value, among: set[ir.Value]) -> list[ir.Value]:
        """Those of some values that a value is computed from, with none of the others between."""
        sources: dict[ir.Value, None] = {}
        stack, seen = [value], {value}
        while stack:
            value = stack.pop()
            producer = value.producer()
            if value in among:
                sources[value] = None
            elif producer is not None:
                fresh = [v for v in self._flow.reads[producer] if v in self.moving and v not in seen]
                seen.update(fresh)
                stack += reversed(fresh)
        return list(sources)

    def _front(self, value: ir.Value) -> list[ir.Value]:
        front: dict[ir.Value, None] = {}
        stack, seen = [value], {value}
        while stack:
            value = stack.pop()
            producer = value.producer()
            if value not in self._jumps and value.dtype in FLOATS and value in self.moving:
                front[_bare(value)] = None
            elif producer is not None:
                fresh = [v for v in self._flow.reads[producer] if v in self.moving and v not in seen]
                seen.update(fresh)
                stack += reversed(fresh)
        return list(front)

    def _follows(self, value: ir.Value, others: set[ir.Value]) -> bool:
        """Whether a value is computed from others without another weight."""
        stack, seen = [value], {value}
        while stack:
            producer = stack.pop().producer()
            if producer is None or producer in self._at_weight:
                return False
            read = [v for v in self._flow.reads[producer] if v in self.moving and v not in others]
            stack += [v for v in read if v not in seen]
            seen.update(read)
        return True


def _jumps(node: ir.Node) -> bool:
    if node.op_type in _JUMPS:
        return True
    if node.op_type == "Cast" and "to" in node.attributes:
        source = node.inputs[0]
        whole = ir.DataType(node.attributes["to"].as_int()) not in FLOATS
        return whole and source is not None and source.dtype in FLOATS and node.attributes["to"].as_int() != 9
    return any(inner.op_type in _JUMPS for body in bodies(node) for inner in body.all_nodes())


def _bare(value: ir.Value) -> ir.Value:
    """A tensor before it was only laid out anew; its sample axis stays where it was."""
    while (node := value.producer()) is not None and node.op_type in ("Identity", "Squeeze", "Unsqueeze"):
        source = node.inputs[0]
        if source is None or source.dtype not in FLOATS:
            break
        value = source
    return value


def _source(value: ir.Value) -> tuple[str, int | None]:
    """The operator that made a value, looked through what only moves numbers, and the axis that it runs along.

    The axis is that of the value itself, or None where it cannot be followed.
    """
    steps: list[ir.Node] = []
    node = value.producer()
    while node is not None and node.op_type in _SAME and node.inputs[0] is not None:
        steps.append(node)
        node = node.inputs[0].producer()
    if node is None:
        return "", None
    if node.op_type in _SCALING and _scaled_source(node) in SIGMOID:
        return SCALED_SIGMOID, None
    rank = 0 if node.outputs[0].shape is None else len(node.outputs[0].shape)
    written_out = _softmax_axis(node)
    if written_out is None and (node.op_type not in _WITH_AXIS or not rank):
        return node.op_type, None
    default = -1 if node.op_type != "Softmax" or _opset(node) >= 13 else 1
    own = node.attributes["axis"].as_int() if "axis" in node.attributes else default
    along = own if written_out is None else written_out
    axis = along % rank if rank else None
    for step in reversed(steps):
        axis = None if axis is None else _moved(step, axis)
    return node.op_type if written_out is None else "Softmax", axis


def _softmax_axis(node: ir.Node) -> int | None:
    """The axis of a softmax that is written out, exp(x) / sum(exp(x)), as JAX exports it; else None."""
    if node.op_type != "Div" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    exponents, below = node.inputs[0], node.inputs[1].producer()
    while below is not None and below.op_type in _SAME and below.inputs[0] is not None:
        below = below.inputs[0].producer()
    maker = exponents.producer()
    if maker is None or maker.op_type != "Exp" or below is None or below.op_type != "ReduceSum":
        return None
    axes = _axes(below)
    return axes[0] if below.inputs[0] is exponents and len(axes) == 1 else None


def _axes(node: ir.Node) -> list[int]:
    """Axes of a reduction; none where it reduces all, or the file does not say."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    given = node.inputs[1] if len(node.inputs) > 1 else None
    return [] if given is None or given.const_value is None else given.const_value.numpy().ravel().tolist()


def _scaled_source(node: ir.Node) -> str:
    """The operator whose result is multiplied, and added to, by constants; the last of these where it is none."""
    while node.op_type in (*_SCALING, *_SAME):
        moving = [value for value in node.inputs if value is not None and not _is_constant(value)]
        producer = moving[0].producer() if len(moving) == 1 else None
        if producer is None:
            break
        node = producer
    return node.op_type


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.const_value is not None or (producer is not None and producer.op_type == "Constant")


def _opset(node: ir.Node) -> int:
    graph = node.graph
    versions = graph.opset_imports if isinstance(graph, ir.Graph) else {}
    return int(versions.get("", 0) or 0)


def _moved(step: ir.Node, axis: int) -> int | None:
    """Where an axis is behind a step, or None where that is not clear."""
    source, result = step.inputs[0], step.outputs[0]
    if step.op_type in ("Identity", "Cast", "CastLike", "Dropout", "Slice"):
        return axis
    if step.op_type == "Transpose" and "perm" in step.attributes:
        return list(step.attributes["perm"].as_ints()).index(axis)
    if source is None or source.shape is None or result.shape is None:
        return None
    # Reshapes keep the last axis if they keep its length.
    last = axis == len(source.shape) - 1 and source.shape[-1] == result.shape[-1]
    return len(result.shape) - 1 if last and isinstance(source.shape[-1], int) else None


def _sample_shape(flow: Flow, value: ir.Value) -> tuple[int | None, ...] | None:
    """The shape with samples first: where the model knows one sample and no axis for it, one is put in front."""
    if value.shape is None:
        return None
    shape = tuple(d if isinstance(d, int) and d >= 0 else None for d in value.shape.dims)
    single = any(v.shape is not None and len(v.shape) and v.shape[0] == 1 for v in flow.inputs)
    if single and (not shape or (shape[0] is not None and shape[0] != 1)):
        return (1, *shape)
    return shape


def _dtype_name(value: ir.Value) -> str:
    if not isinstance(value.type, ir.TensorType | None):
        return type(value.type).__name__.removesuffix("Type").lower()
    if value.dtype is None:
        return "float32"
    return "str" if value.dtype == ir.DataType.STRING else value.dtype.numpy().name
