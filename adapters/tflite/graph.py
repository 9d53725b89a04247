"""A decoded TFLite model with every index checked, and the questions one asks of its graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lampq.adapters.tflite.flatbuffer import Record, decode
from lampq.adapters.tflite.schema import schema
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import printable

BITS = {
    "FLOAT32": 32, "FLOAT16": 16, "BFLOAT16": 16, "FLOAT64": 64, "COMPLEX64": 64, "COMPLEX128": 128,
    "BOOL": 8,
    "INT8": 8, "UINT8": 8, "INT16": 16, "UINT16": 16, "INT32": 32, "UINT32": 32, "INT64": 64, "UINT64": 64,
    "INT4": 4, "UINT4": 4, "INT2": 2, "FLOAT8_E4M3FN": 8, "FLOAT8_E5M2": 8,
}  # fmt: skip
DTYPES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "FLOAT64": "float64", "INT8": "int8", "UINT8": "uint8",
    "INT16": "int16", "UINT16": "uint16", "INT32": "int32", "UINT32": "uint32", "INT64": "int64",
    "UINT64": "uint64", "BOOL": "bool",
}  # fmt: skip
# A tensor of this many entries is no tensor but a damaged shape.
_MOST_ENTRIES = 1 << 40
_MOST_AXES = 16
_LABEL_LENGTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operator of a subgraph.

    Attributes:
        index: Its place in the subgraph.
        name: Its name in the schema, or `CUSTOM name`.
        inputs: Tensors it reads; -1 where an optional one is absent.
        outputs: Tensors it writes.
        record: Its record.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    record: Record

    @property
    def options(self) -> Record | None:
        """Its options, whichever of the two unions holds them."""
        options: Record | None = self.record.builtin_options or self.record.builtin_options2
        return options


class Subgraph:
    """One subgraph of a model.

    Args:
        graph: The model it belongs to.
        index: Its number.
        record: Its record.

    Attributes:
        index: Its number.
        name: Its name.
        tensors: Records of its tensors.
        ops: Its operators in order of execution.
        inputs: Tensors it is fed.
        outputs: Tensors it gives.
    """

    def __init__(self, graph: Graph, index: int, record: Record) -> None:
        self.index = index
        self.record = record
        self.name = text(record.name) or f"subgraph {index}"
        self.tensors: list[Record] = record.tensors or []
        self._graph = graph
        where = f"subgraph {index}"
        count = len(self.tensors)
        self.inputs = _indices(record.inputs, 0, count, f"{where}: its inputs")
        self.outputs = _indices(record.outputs, 0, count, f"{where}: its outputs")
        self.ops = [
            self._op(i, op, graph, f"{where}, operator {i}") for i, op in enumerate(record.operators or [])
        ]
        for i, tensor in enumerate(self.tensors):
            graph.check_tensor(tensor, f"{where}, tensor {i} ({label(tensor)})")

    def _op(self, index: int, record: Record, graph: Graph, where: str) -> Op:
        if record.opcode_index >= len(graph.op_names):
            raise AdapterError(
                f"{where} is of kind {record.opcode_index} of {len(graph.op_names)}; the file is damaged"
            )
        count = len(self.tensors)
        return Op(
            index=index,
            name=graph.op_names[record.opcode_index],
            inputs=_indices(record.inputs, -1, count, f"{where}: its inputs"),
            outputs=_indices(record.outputs, 0, count, f"{where}: its outputs"),
            record=record,
        )

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor; () for a scalar."""
        return shape_of(self.tensors[tensor])

    def dtype(self, tensor: int) -> str:
        """Element type of a tensor as the schema calls it."""
        return type_of(self.tensors[tensor])

    def constant(self, tensor: int) -> np.ndarray | None:
        """The stored values of a tensor in its shape, a view of the file; None where it is computed.

        Types below 8 bits come as packed bytes in one row.
        """
        record = self.tensors[tensor]
        data: np.ndarray = self._graph.buffers[record.buffer]
        if data.size == 0 or record.is_variable:
            return None
        name = DTYPES.get(type_of(record))
        if name is None or record.sparsity is not None:
            return data
        # The file's alignment is nobody's promise, and arithmetic on unaligned views is slow but right.
        return np.frombuffer(data, dtype=np.dtype(name).newbyteorder("<")).reshape(shape_of(record))

    @cached_property
    def producers(self) -> dict[int, Op]:
        """The operator that writes each computed tensor."""
        return {tensor: op for op in self.ops for tensor in op.outputs}

    @cached_property
    def consumers(self) -> dict[int, list[tuple[Op, int]]]:
        """The operators that read each tensor, and in which place."""
        consumers: dict[int, list[tuple[Op, int]]] = {}
        for op in self.ops:
            for slot, tensor in enumerate(op.inputs):
                consumers.setdefault(tensor, []).append((op, slot))
        return consumers


class Graph:
    """A model.

    Args:
        data: The whole file, anything with a buffer.

    Attributes:
        record: The decoded model.
        buffers: Bytes of each buffer, empty where it holds none; views of the file.
        op_names: Name of each operator code.
        subgraphs: Its subgraphs.

    Raises:
        AdapterError: The file is damaged, or stores its weights in other files.
    """

    def __init__(self, data: Any) -> None:
        self.record = decode(data)
        if self.record.version != 3:
            raise AdapterError(f"schema version {self.record.version}; only version 3 is in use")
        view = memoryview(data)
        self.buffers = [_buffer(i, buffer, view) for i, buffer in enumerate(self.record.buffers or [])]
        self.op_names = [_op_name(code) for code in self.record.operator_codes or []]
        if not self.record.subgraphs:
            raise AdapterError("the model has no graph")
        self.subgraphs = [Subgraph(self, i, subgraph) for i, subgraph in enumerate(self.record.subgraphs)]
        for definition in self.record.signature_defs or []:
            self._check_signature(definition)
        for entry in self.record.metadata or []:
            if entry.buffer >= len(self.buffers):
                name = text(entry.name)[:_LABEL_LENGTH]
                raise AdapterError(f"metadata {name} is in buffer {entry.buffer} of {len(self.buffers)}")

    def check_tensor(self, tensor: Record, where: str) -> None:
        """Whether a tensor's type, shape and data agree.

        Raises:
            AdapterError: They do not.
        """
        kind = schema().enums["TensorType"].get(tensor.type)
        if kind is None:
            raise AdapterError(f"{where} has type {tensor.type}, unknown here")
        if tensor.buffer >= len(self.buffers):
            raise AdapterError(
                f"{where} lies in buffer {tensor.buffer} of {len(self.buffers)}; the file is damaged"
            )
        if tensor.external_buffer:
            raise AdapterError(f"{where} has its data in another file; join the files first")
        shape = shape_of(tensor)
        if len(shape) > _MOST_AXES:
            raise AdapterError(f"{where} has {len(shape)} axes; the file is damaged")
        if any(d < 0 for d in shape) or math.prod(shape) > _MOST_ENTRIES:
            raise AdapterError(f"{where} has the impossible shape {shape}")
        size = self.buffers[tensor.buffer].size
        if size == 0 or kind not in BITS or tensor.sparsity is not None:
            return
        needed = -(-math.prod(shape) * BITS[kind] // 8)
        if size != needed:
            raise AdapterError(
                f"{where} of shape {shape} and type {kind} needs {needed} bytes; its buffer has {size}"
            )

    def _check_signature(self, definition: Record) -> None:
        where = f"signature {text(definition.signature_key)[:_LABEL_LENGTH]}"
        if definition.subgraph_index >= len(self.subgraphs):
            raise AdapterError(f"{where} is of subgraph {definition.subgraph_index} of {len(self.subgraphs)}")
        count = len(self.subgraphs[definition.subgraph_index].tensors)
        for entry in [*(definition.inputs or []), *(definition.outputs or [])]:
            if entry.tensor_index >= count:
                raise AdapterError(
                    f"{where}: {text(entry.name)[:_LABEL_LENGTH]} is tensor {entry.tensor_index} of {count}"
                )

    def subgraph_references(self) -> Iterator[tuple[Record, str]]:
        """The fields of operators' options that name subgraphs."""
        for subgraph in self.subgraphs:
            for op in subgraph.ops:
                if op.options is not None:
                    for field in schema().tables[op.options.table]:
                        if "subgraph" in field.name or field.name == "called_computations":
                            yield op.options, field.name


def text(value: bytes | None) -> str:
    """A string of the file as text; what is no UTF-8, and control characters, become replacement marks."""
    return printable((value or b"").decode("utf-8", "replace"))


def label(tensor: Record) -> str:
    """Name of a tensor for a message, cut where it is long."""
    name = text(tensor.name)
    return name if len(name) <= _LABEL_LENGTH else f"...{name[-_LABEL_LENGTH:]}"


def shape_of(tensor: Record) -> tuple[int, ...]:
    """Shape of a tensor's record."""
    return () if tensor.shape is None else tuple(int(d) for d in tensor.shape)


def type_of(tensor: Record) -> str:
    """Element type of a tensor's record."""
    return schema().enums["TensorType"][tensor.type]


def _indices(values: Sequence[int] | None, low: int, high: int, what: str) -> tuple[int, ...]:
    indices = () if values is None else tuple(int(v) for v in values)
    if any(not low <= v < high for v in indices):
        raise AdapterError(f"{what} name tensor {next(v for v in indices if not low <= v < high)} of {high}")
    return indices


def _buffer(index: int, buffer: Record, view: memoryview) -> np.ndarray:
    # Files beyond 2 GiB keep data behind the tables and refer to it by place; 0 and 1 mean that they do not.
    if buffer.offset > 1:
        end = buffer.offset + buffer.size
        if end > len(view):
            raise AdapterError(f"buffer {index} ends at byte {end} of {len(view)}; the file is cut off")
        return np.frombuffer(view, np.uint8, buffer.size, buffer.offset)
    return np.empty(0, np.uint8) if buffer.data is None else buffer.data


def _op_name(code: Record) -> str:
    # Codes above 127 did not fit the first field; older files have only that one.
    number = max(code.builtin_code, code.deprecated_builtin_code)
    name = schema().enums["BuiltinOperator"].get(number)
    if name is None:
        raise AdapterError(f"operator {number} is unknown here; the file is damaged or of a newer schema")
    return f"CUSTOM {text(code.custom_code)}" if name == "CUSTOM" else name
