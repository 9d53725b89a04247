"""Where operators read constant weights, and why some of these must stay as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lampq.adapters.tflite.graph import Op, Subgraph
from lampq.adapters.tflite.operands import (
    CALLS,
    CONV,
    DEPTHWISE,
    EITHER,
    FULLY_CONNECTED,
    MATMUL,
    TABLES,
    Operand,
    operands,
)
from lampq.core.values.layer import worth_quantizing

FLOATS = ("FLOAT32", "FLOAT16")
CODED = {"INT8": 8, "UINT8": 8, "INT4": 4, "INT2": 2}
# Operators that lie between a stored weight and those that multiply by it.
_UNPACKING = ("DEQUANTIZE", "DENSIFY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One place where a weight is used.

    Attributes:
        subgraph: Number of the subgraph.
        op: Number of the operator in it.
        op_name: Its name.
        slot: Which of its inputs the weight is.
        axis: Axis of the output channels.
        source: The input that meets the rows of the weight, or None.
        tensor: The tensor the operator reads the weight from.
        stored: The constant tensor; another one where a DEQUANTIZE of float16 or codes lies between.
    """

    subgraph: int
    op: int
    op_name: str
    slot: int
    axis: int
    source: int | None
    tensor: int
    stored: int


@dataclass(frozen=True, slots=True)
class Place:
    """A constant weight where an operator reads it, why it must stay, and its width if it is quantized."""

    site: Site
    reason: str | None = None
    bits: int | None = None
    behind: bool = False


def located(subgraph: Subgraph, op: Op, *, requantize: bool) -> Iterator[Place]:
    """The constant weights of an operator."""
    for operand in operands(op):
        if len(op.inputs) > operand.slot and op.inputs[operand.slot] >= 0:
            place = _place(subgraph, op, operand, requantize=requantize)
            if place is not None:
                yield place


def _place(subgraph: Subgraph, op: Op, operand: Operand, *, requantize: bool) -> Place | None:
    tensor = op.inputs[operand.slot]
    stored, sparse = stored_behind(subgraph, tensor)
    if stored < 0 or subgraph.constant(stored) is None:
        return None
    dtype, shape = subgraph.dtype(stored), subgraph.shape(stored)
    if len(shape) < 2 and op.name not in (FULLY_CONNECTED, CONV, DEPTHWISE):
        return None
    site = Site(
        subgraph=subgraph.index,
        op=op.index,
        op_name=op.name,
        slot=operand.slot,
        axis=operand.axis % max(1, len(shape)),
        source=operand.source,
        tensor=tensor,
        stored=stored,
    )
    if dtype not in FLOATS and (op.name in CALLS or dtype not in CODED):
        # Integers are looked up and handed on, but are no weights.
        return None if op.name in TABLES | CALLS else Place(site, f"stored as {dtype}")
    bits = CODED.get(dtype)
    fed = _fed(subgraph, op, operand)
    if bits and not (requantize and fed == "FLOAT32"):
        able = not requantize and (fed == "FLOAT32" or op.name in EITHER)
        hint = "; --requantize takes its rounded values" if able else ""
        return Place(site, f"already quantized ({dtype}){hint}", bits)
    if sparse:
        return Place(site, "stored as a sparse tensor")
    if fed != "FLOAT32":
        return Place(site, f"its input is {fed}")
    reason = _unfit(op, shape)
    return Place(site, reason, bits if reason else None, behind=_needs_numbers(subgraph, op, operand, shape))


def _fed(subgraph: Subgraph, op: Op, operand: Operand) -> str:
    """Type of the numbers that an operator takes beside a weight, or gives where it takes none."""
    if op.name in CALLS:
        return "FLOAT32"
    return subgraph.dtype(op.outputs[0] if operand.source is None else op.inputs[operand.source])


def stored_behind(subgraph: Subgraph, tensor: int) -> tuple[int, bool]:
    """The constant behind a tensor, and whether it is stored sparse."""
    sparse = False
    for _ in _UNPACKING:
        sparse |= subgraph.tensors[tensor].sparsity is not None
        producer = subgraph.producers.get(tensor)
        if producer is None or producer.name not in _UNPACKING or not producer.inputs:
            break
        sparse |= producer.name == "DENSIFY"
        tensor = producer.inputs[0]
    return tensor, sparse or (tensor >= 0 and subgraph.tensors[tensor].sparsity is not None)


def _unfit(op: Op, shape: tuple[int, ...]) -> str | None:
    """Why an operator's weight cannot be quantized, or None."""
    if math.prod(shape) == 0:
        return "it is empty"
    if not worth_quantizing(shape):
        return f"only {math.prod(shape)} weights"
    if op.name == FULLY_CONNECTED:
        if op.options is not None and op.options.weights_format != 0:
            return "its weights are stored shuffled"
        return None if len(shape) == 2 else f"a fully connected weight of shape {shape}"
    if op.name in (CONV, DEPTHWISE):
        return None if len(shape) == 4 else f"a convolution weight of shape {shape}"
    return None


def _needs_numbers(subgraph: Subgraph, op: Op, operand: Operand, shape: tuple[int, ...]) -> bool:
    """Whether a product with a constant has no form as a linear layer."""
    if op.name != MATMUL:
        return False
    rank = len(subgraph.shape(op.inputs[0])) == len(subgraph.shape(op.outputs[0]))
    return operand.source is None or any(d != 1 for d in shape[:-2]) or not rank
