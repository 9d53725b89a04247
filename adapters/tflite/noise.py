"""Random samples that a model can be tried with where there are none of its own."""

from __future__ import annotations

import numpy as np

from lampq.adapters.tflite.graph import DTYPES, Op, Subgraph
from lampq.adapters.tflite.interface import Interface, Port
from lampq.core.values.batch import Batch

# Integers of which nothing is known are zeros and ones.
_NUMBERS = 2
_ON_THE_WAY = frozenset(
    ("CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "MAXIMUM", "MINIMUM", "SLICE")
)


def trial(interface: Interface, subgraph: Subgraph, samples: int, length: int | None = None) -> Batch:
    """Random samples: normal numbers, tokens that the model's tables know, truths.

    Args:
        interface: The model's inputs.
        subgraph: The subgraph that is run.
        samples: How many.
        length: Of free axes; None takes what the file has.
    """
    rng = np.random.default_rng(0)
    return Batch(
        [{port.spec.name: _array(port, subgraph, samples, length, rng) for port in interface.inputs}]
    )


def numbers_for(subgraph: Subgraph, op: Op, tensor: int) -> np.ndarray:
    """Random numbers for an input of an operator, in the shape of the file."""
    shape = tuple(max(1, d) for d in subgraph.shape(tensor))
    dtype = np.dtype(DTYPES[subgraph.dtype(tensor)])
    rng = np.random.default_rng(op.index)
    if dtype.kind == "f":
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    return rng.integers(0, rows(subgraph, tensor), shape).astype(dtype)


def _array(
    port: Port, subgraph: Subgraph, samples: int, length: int | None, rng: np.random.Generator
) -> np.ndarray:
    free = zip(port.spec.shape[1:], port.fallback[1:], strict=True)
    shape = (samples, *(stored if d is not None or length is None else length for d, stored in free))
    if port.spec.dtype not in DTYPES.values():
        return np.zeros(shape)
    if np.dtype(port.spec.dtype).kind == "f":
        return rng.standard_normal(shape, dtype=np.float32).astype(port.spec.dtype)
    return rng.integers(0, rows(subgraph, port.tensor), shape).astype(port.spec.dtype)


def rows(subgraph: Subgraph, tensor: int) -> int:
    """How many numbers an input of integers may take: the rows of the smallest table that it is looked up in."""
    wanted, seen, lengths = [tensor], {tensor}, []
    while wanted:
        for op, slot in subgraph.consumers.get(wanted.pop(), []):
            if op.name == "GATHER" and slot == 1:
                axis = 0 if op.options is None else int(op.options.axis)
                lengths.append(subgraph.shape(op.inputs[0])[axis])
            elif op.name == "EMBEDDING_LOOKUP" and slot == 0:
                lengths.append(subgraph.shape(op.inputs[1])[0])
            elif op.name in _ON_THE_WAY:
                new = [t for t in op.outputs if t not in seen]
                seen.update(new)
                wanted += new
    return max(1, min(lengths, default=_NUMBERS))
