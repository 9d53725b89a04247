"""Which operators read weights, in which place, and along which axis each of their rows gives one output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lampq.adapters.tflite.graph import Op

FULLY_CONNECTED, CONV, DEPTHWISE, MATMUL = "FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL"
TRANSPOSED, LOOKUP, GATHER = "TRANSPOSE_CONV", "EMBEDDING_LOOKUP", "GATHER"
CONVOLUTIONS = frozenset((CONV, DEPTHWISE, TRANSPOSED, "CONV_3D", "CONV_3D_TRANSPOSE"))
TABLES = frozenset((LOOKUP, GATHER, "GATHER_ND"))
CALLS = frozenset(("IF", "WHILE", "CALL", "STABLEHLO_COMPOSITE"))
"""Operators that hand constants on to other subgraphs."""
EITHER = frozenset((FULLY_CONNECTED, CONV, DEPTHWISE, TRANSPOSED, MATMUL, LOOKUP, GATHER))
"""Operators that do to numbers what they do to codes."""
_BIASES = {FULLY_CONNECTED: 2, CONV: 2, DEPTHWISE: 2, TRANSPOSED: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A place where an operator reads a weight.

    Attributes:
        slot: Which of its inputs.
        axis: Axis of the output channels; negative counts from the end.
        source: The input that meets the weight's rows, or None where that is not one of its inputs as it stands.
    """

    slot: int
    axis: int = 0
    source: int | None = None


_GATES, _RECURRENT = range(1, 5), range(5, 9)
_LSTM = (*(Operand(slot=i, source=0) for i in _GATES), *(Operand(slot=i) for i in (*_RECURRENT, 16)))
_OPERANDS: Mapping[str, tuple[Operand, ...]] = {
    FULLY_CONNECTED: (Operand(slot=1, source=0),),
    CONV: (Operand(slot=1, source=0),),
    DEPTHWISE: (Operand(slot=1, axis=3, source=0),),
    TRANSPOSED: (Operand(slot=1, source=2),),
    "CONV_3D": (Operand(slot=1, axis=4),),
    "CONV_3D_TRANSPOSE": (Operand(slot=1, axis=3),),
    LOOKUP: (Operand(slot=1),),
    "GATHER_ND": (Operand(slot=0),),
    "SVDF": (Operand(slot=1, source=0), Operand(slot=2)),
    "RNN": (Operand(slot=1, source=0), Operand(slot=2)),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (Operand(slot=1, source=0), Operand(slot=2)),
    "BIDIRECTIONAL_SEQUENCE_RNN": (
        *(Operand(slot=i, source=0) for i in (1, 5)),
        *(Operand(slot=i) for i in (2, 6)),
    ),
    "LSTM": _LSTM,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
    # The weights of the way back lie 17 places behind those of the way there.
    "BIDIRECTIONAL_SEQUENCE_LSTM": (
        *(Operand(slot=i + back, source=0) for back in (0, 17) for i in _GATES),
        *(Operand(slot=i + back) for back in (0, 17) for i in (*_RECURRENT, 16)),
    ),
}  # fmt: skip


def operands(op: Op) -> tuple[Operand, ...]:
    """The places where an operator reads weights, as its options have them; empty for others."""
    options = op.options
    if op.name == MATMUL:
        across, down = (
            options is not None and bool(options.adj_x),
            options is not None and bool(options.adj_y),
        )
        right = Operand(slot=1, axis=-2 if down else -1, source=None if across else 0)
        return right, Operand(slot=0, axis=-1 if across else -2)
    if op.name == GATHER:
        return (Operand(slot=0, axis=0 if options is None else int(options.axis)),)
    if op.name in CALLS:
        return tuple(Operand(slot=slot) for slot in range(len(op.inputs)))
    return _OPERANDS.get(op.name, ())


def bias(op: Op) -> int | None:
    """The tensor of an operator's bias, or None."""
    slot = _BIASES.get(op.name)
    if slot is None or len(op.inputs) <= slot or op.inputs[slot] < 0:
        return None
    return op.inputs[slot]
