"""Run a large model piece by piece: a few layers' weights are in memory at a time, those of the file are not.

A session of a whole model holds its weights as stored, unpacked and laid out for the kernels, all at once. Here each
piece has a session of its own, which is closed before the next is opened; values go from one to the next. Kernels and
optimizations are the runtime's own, as in a session of the whole, except across a cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from lampq.adapters.onnx import flow, parts
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.session import Runtime, to_value
from lampq.core.values.errors import AdapterError

# Float bytes of the weights of one piece: sessions hold about four times as much.
_PIECE_BYTES = 1 << 26

# What a byte of a stored constant becomes when a session unpacks it to float32: integers one each, packed codes two to
# eight a plane.
_FLOAT_BYTES = {ir.DataType.INT8: 4, ir.DataType.UINT8: 16}
_ELEMENTS = {
    "tensor(float)": ir.DataType.FLOAT,
    "tensor(float16)": ir.DataType.FLOAT16,
    "tensor(bfloat16)": ir.DataType.BFLOAT16,
    "tensor(double)": ir.DataType.DOUBLE,
    "tensor(int8)": ir.DataType.INT8,
    "tensor(uint8)": ir.DataType.UINT8,
    "tensor(int16)": ir.DataType.INT16,
    "tensor(uint16)": ir.DataType.UINT16,
    "tensor(int32)": ir.DataType.INT32,
    "tensor(uint32)": ir.DataType.UINT32,
    "tensor(int64)": ir.DataType.INT64,
    "tensor(uint64)": ir.DataType.UINT64,
    "tensor(bool)": ir.DataType.BOOL,
    "tensor(string)": ir.DataType.STRING,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Piece:
    """Consecutive nodes.

    Attributes:
        nodes: The nodes.
        inputs: Values computed before that they read.
        outputs: Values of theirs that are read later, or that the graph gives.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]


def run(
    model: ir.Model,
    runtime: Runtime,
    names: Sequence[str],
    feed: Mapping[str, np.ndarray],
    *,
    piece_bytes: int | None = None,
    prepack: bool = True,
) -> dict[str, np.ndarray]:
    """Some values of a model, by name.

    Args:
        model: A model; its inner values are given types as they become known. Tensors that are read from files on
            demand are read for their piece and let go.
        runtime: How sessions are opened.
        names: Outputs or inner tensors that depend on an input.
        feed: All inputs by name.
        piece_bytes: Most float bytes of weights per piece, unless one layer has more; None takes 64 MB.
        prepack: Run as others would, with a second copy of each piece's weights (`Runtime.open_part`).

    Raises:
        AdapterError: The runtime cannot load or run a piece.
    """
    # Functions are inlined; nothing else changes.
    traced = flow.trace(flow.normalize(model), names)
    outputs = traced.outputs
    state = {value: to_value(feed[value.name or ""]) for value in traced.inputs}
    for piece, later in _cut(traced, outputs, piece_bytes or _PIECE_BYTES):
        for value in piece.inputs:
            _set_type(value, state[value])
        made = _run(traced, runtime, piece, state, prepack)
        state = {value: held for value, held in (state | made).items() if value in later}
    return {value.name or "": np.array(state[value].numpy()) for value in outputs}


def _run(
    traced: Flow, runtime: Runtime, piece: _Piece, state: Mapping[ir.Value, ort.OrtValue], prepack: bool
) -> dict[ir.Value, ort.OrtValue]:
    part = parts.build(traced, piece.nodes, inputs=piece.inputs, outputs=piece.outputs)
    session = runtime.open_part(part, shared=False, prepack=prepack)
    feeds = {value.name or "": state[value] for value in piece.inputs}
    made = runtime.run(session, [value.name or "" for value in piece.outputs], feeds)
    return dict(zip(piece.outputs, made, strict=True))


def _set_type(value: ir.Value, held: ort.OrtValue) -> None:
    """Tell a value's type, as computed, where the graph does not: the builder needs it of a piece's inputs."""
    if value.type is None:
        if held.data_type() not in _ELEMENTS:
            raise AdapterError(f"{value.name} is a {held.data_type()}, which cannot be handed on")
        value.type = ir.TensorType(_ELEMENTS[held.data_type()])


def _cut(
    traced: Flow, outputs: Sequence[ir.Value], piece_bytes: int
) -> Iterator[tuple[_Piece, frozenset[ir.Value]]]:
    """Pieces in order, each with the values that are needed after it."""
    nodes = [node for node in traced.model.graph if any(value in traced.active for value in node.outputs)]
    last = {value: len(nodes) for value in outputs}
    for index, node in enumerate(nodes):
        for value in traced.reads[node]:
            if value in traced.active:
                last[value] = max(last.get(value, 0), index)
    made = {value: index for index, node in enumerate(nodes) for value in node.outputs}
    bounds = _bounds(traced, nodes, made, last, piece_bytes)
    for low, high in itertools.pairwise(bounds):
        inside = nodes[low:high]
        read = {value: None for node in inside for value in traced.reads[node] if value in traced.active}
        later = frozenset(value for value, end in last.items() if end >= high and made.get(value, -1) < high)
        piece = _Piece(
            nodes=tuple(inside),
            inputs=tuple(value for value in read if made.get(value, -1) < low),
            outputs=tuple(value for value in later if made.get(value, -1) >= low),
        )
        yield piece, later


def _bounds(
    traced: Flow,
    nodes: Sequence[ir.Node],
    made: Mapping[ir.Value, int],
    last: Mapping[ir.Value, int],
    piece_bytes: int,
) -> list[int]:
    """Where pieces begin, and the end.

    A cut lies between the last layer that fits and the first that does not, where the fewest values cross. Among
    these places one behind a QuantizeLinear is best, which leaves its product with what reads it; then the latest.
    """
    crossing = [0] * (len(nodes) + 1)
    for value, end in last.items():
        for place in range(made.get(value, -1) + 1, end + 1):
            crossing[place] += 1
    bounds, held, heavy = [0], 0, -1
    for index, node in enumerate(nodes):
        size = _weight_bytes(traced, node)
        if not size:
            continue
        if held and held + size > piece_bytes:
            places = range(heavy + 1, index + 1)
            bounds.append(min(places, key=lambda at: (crossing[at], not _is_rounded(nodes[at - 1]), -at)))
            held = 0
        held, heavy = held + size, index
    return [*bounds, len(nodes)]


def _is_rounded(node: ir.Node) -> bool:
    return node.op_type == "QuantizeLinear"


def _weight_bytes(traced: Flow, node: ir.Node) -> int:
    """Bytes, as float, of the constants behind a node."""
    total, stack, seen = 0, list(traced.reads[node]), set()
    while stack:
        value = stack.pop()
        if value in seen or value in traced.active:
            continue
        seen.add(value)
        producer = value.producer()
        if producer is not None:
            stack += traced.reads[producer]
        elif value.const_value is not None:
            total += int(value.const_value.nbytes) * _FLOAT_BYTES.get(value.const_value.dtype, 1)
    return total
