"""A model under change: tensors, operators and buffers replaced while the original stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lampq.adapters.tflite.flatbuffer import Record, encode
from lampq.adapters.tflite.graph import Graph
from lampq.adapters.tflite.schema import schema
from lampq.adapters.tflite.weights import Weight

# Fields of an operator that list tensors.
_TENSOR_LISTS = ("inputs", "outputs", "intermediates")


class Draft:
    """A copy of a model that may be changed. What is not changed is shared with the original.

    Args:
        graph: The model to start from.

    Attributes:
        graph: The original.
        tensors: Per subgraph, records of its tensors.
        ops: Per subgraph, its operators; None where one was dropped.
        buffers: Records of the buffers.
        codes: Records of the operator codes.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors = [list(subgraph.tensors) for subgraph in graph.subgraphs]
        self.ops: list[list[Record | None]] = [
            [op.record for op in subgraph.ops] for subgraph in graph.subgraphs
        ]
        self.records = list(graph.record.subgraphs)
        self.inputs = [subgraph.inputs for subgraph in graph.subgraphs]
        self.outputs = [subgraph.outputs for subgraph in graph.subgraphs]
        # Data that lay behind the tables of a very large file comes back into them where it fits.
        self.buffers = [Record("Buffer", data=data if data.size else None) for data in graph.buffers]
        self.codes = list(graph.record.operator_codes or [])
        self.signatures = graph.record.signature_defs
        self.metadata = graph.record.metadata
        self.metadata_buffer = graph.record.metadata_buffer
        self._dropped: set[tuple[int, int]] = set()
        self._around: dict[tuple[int, int], tuple[list[Record], list[Record]]] = {}

    def add_buffer(self, data: np.ndarray) -> int:
        """Number of a new buffer that holds the bytes of an array."""
        self.buffers.append(_buffer(data))
        return len(self.buffers) - 1

    def add_tensor(self, subgraph: int, tensor: Record) -> int:
        """Number of a new tensor of a subgraph."""
        self.tensors[subgraph].append(tensor)
        return len(self.tensors[subgraph]) - 1

    def code(self, name: str, version: int) -> int:
        """Number of the code of a builtin operator at a version, added where it is new."""
        number = schema().value("BuiltinOperator", name)
        for index, record in enumerate(self.codes):
            builtin = max(record.builtin_code, record.deprecated_builtin_code)
            if (builtin, record.version) == (number, version):
                return index
        # Readers before schema 3a know only the first field, which holds codes below 127.
        self.codes.append(
            Record(
                "OperatorCode", deprecated_builtin_code=min(number, 127), builtin_code=number, version=version
            )
        )
        return len(self.codes) - 1

    def version(self, op: Record) -> int:
        """Version of an operator's code."""
        return int(self.codes[op.opcode_index].version)

    def change(self, subgraph: int, op: int, **changes: Any) -> None:
        """Replace fields of an operator."""
        record = self.ops[subgraph][op]
        if record is not None:
            self.ops[subgraph][op] = record.copy(**changes)

    def surround(
        self, subgraph: int, op: int, *, before: Sequence[Record] = (), after: Sequence[Record] = ()
    ) -> None:
        """Put new operators directly before and after one."""
        front, back = self._around.setdefault((subgraph, op), ([], []))
        front.extend(before)
        back.extend(after)

    def set_float(self, weight: Weight, values: np.ndarray) -> None:
        """Replace a weight by other float32 values, wherever it is used."""
        self.set_data(
            weight,
            np.asarray(values, dtype=np.float32),
            type=schema().value("TensorType", "FLOAT32"),
            quantization=None,
        )

    def set_data(self, weight: Weight, data: np.ndarray, **changes: Any) -> None:
        """Replace a weight's bytes, and fields of the tensors that operators read it from.

        What turned it from float16 or codes into float32 goes: the operators now read the new data themselves.
        """
        for reading in weight.readings:
            tensor = self.graph.subgraphs[reading.subgraph].tensors[reading.tensor]
            changed = tensor.copy(buffer=weight.buffer, **changes)
            self.tensors[reading.subgraph][reading.tensor] = changed
            if reading.stored != reading.tensor:
                producer = self.graph.subgraphs[reading.subgraph].producers[reading.tensor]
                self.ops[reading.subgraph][producer.index] = None
                self._dropped.add((reading.subgraph, reading.stored))
        self.buffers[weight.buffer] = _buffer(data)

    def set_codes(self, weight: Weight, data: np.ndarray, version: int, **changes: Any) -> None:
        """Replace a weight by codes that a DEQUANTIZE makes numbers of, whoever reads them.

        Args:
            weight: The weight.
            data: The packed codes.
            version: Of the DEQUANTIZE.
            changes: Type and scales of the codes.
        """
        code = self.code("DEQUANTIZE", version)
        for reading in weight.readings:
            subgraph = self.graph.subgraphs[reading.subgraph]
            stored = subgraph.tensors[reading.stored].copy(buffer=weight.buffer, **changes)
            if reading.stored != reading.tensor:
                self.tensors[reading.subgraph][reading.stored] = stored
                self.change(reading.subgraph, subgraph.producers[reading.tensor].index, opcode_index=code)
                continue
            codes = self.add_tensor(reading.subgraph, stored.copy(name=(stored.name or b"") + b"/codes"))
            self.tensors[reading.subgraph][reading.tensor] = subgraph.tensors[reading.tensor].copy(
                buffer=0, type=schema().value("TensorType", "FLOAT32"), quantization=None
            )
            readers = subgraph.consumers.get(reading.tensor)
            first = min(op.index for op, _ in readers) if readers else 0
            step = operator(code, codes, reading.tensor, "DequantizeOptions")
            self.surround(reading.subgraph, first, before=[step])
        self.buffers[weight.buffer] = _buffer(data)

    def keep(self, subgraph: int, ops: Iterable[int], inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Reduce the model to some operators of one subgraph with other inputs and outputs."""
        wanted = set(ops)
        self.ops = [[op if i in wanted else None for i, op in enumerate(self.ops[subgraph])]]
        self.tensors, self.records = [self.tensors[subgraph]], [self.records[subgraph]]
        self.inputs, self.outputs = [tuple(inputs)], [tuple(outputs)]
        self.signatures = self.metadata = self.metadata_buffer = None
        self._dropped = {(0, tensor) for i, tensor in self._dropped if i == subgraph}
        live = {*inputs, *outputs}
        for op in self.ops[0]:
            if op is not None:
                live.update(int(t) for name in _TENSOR_LISTS for t in _listed(op, name))
        self._dropped |= {(0, i) for i in range(len(self.tensors[0])) if i not in live}
        # Empty buffers are tables too: a part of a large model is read faster without them.
        used = sorted({0} | {self.tensors[0][i].buffer for i in live if i >= 0})
        numbering = {old: new for new, old in enumerate(used)}
        self.buffers = [self.buffers[i] for i in used]
        for i in live:
            if i >= 0:
                self.tensors[0][i] = self.tensors[0][i].copy(buffer=numbering[self.tensors[0][i].buffer])

    def promote(self, main: int) -> None:
        """Make a subgraph the first, which is the one that runtimes run."""
        if main == 0:
            return
        order = [main, *(i for i in range(len(self.ops)) if i != main)]
        place = {old: new for new, old in enumerate(order)}
        changed: dict[int, Record] = {}
        for options, name in self.graph.subgraph_references():
            value = getattr(options, name)
            if isinstance(value, np.ndarray):
                moved: Any = np.array([place.get(int(v), int(v)) for v in value], dtype=value.dtype)
            else:
                moved = value if value is None else place.get(int(value), value)
            changed[id(options)] = changed.get(id(options), options).copy(**{name: moved})
        for ops in self.ops:
            for i, op in enumerate(ops):
                for name in ("builtin_options", "builtin_options2"):
                    if op is not None and id(getattr(op, name)) in changed:
                        ops[i] = op = op.copy(**{name: changed[id(getattr(op, name))]})
        self.tensors = [self.tensors[i] for i in order]
        self.ops = [self.ops[i] for i in order]
        self.records = [self.records[i] for i in order]
        self.inputs = [self.inputs[i] for i in order]
        self.outputs = [self.outputs[i] for i in order]
        self._dropped = {(place[i], tensor) for i, tensor in self._dropped}
        self._around = {(place[i], op): lists for (i, op), lists in self._around.items()}
        self.signatures = None

    def numbering(self, subgraph: int) -> dict[int, int]:
        """The number that each tensor of a subgraph has in the changed model."""
        remaining = (i for i in range(len(self.tensors[subgraph])) if (subgraph, i) not in self._dropped)
        return {old: new for new, old in enumerate(remaining)}

    def discard(self, subgraph: int, tensor: int) -> None:
        """Leave a tensor out of the changed model if no operator reads it any more."""
        readers = (op for op in self.ops[subgraph] if op is not None)
        if not any(tensor in _listed(op, "inputs") for op in readers):
            self._dropped.add((subgraph, tensor))

    def model(self) -> Record:
        """The changed model as a record, without tensors and data that nothing refers to any more."""
        subgraphs, numberings = [], []
        for index, (tensors, own) in enumerate(zip(self.tensors, self.ops, strict=True)):
            ops = list(self._in_order(index, own))
            renumbered = self.numbering(index)
            numbering = {-1: -1, **renumbered}
            numberings.append(numbering)
            subgraphs.append(
                self.records[index].copy(
                    tensors=[tensors[i] for i in renumbered],
                    inputs=_numbers(numbering[i] for i in self.inputs[index]),
                    outputs=_numbers(numbering[i] for i in self.outputs[index]),
                    operators=[_renumbered(op, numbering) for op in ops],
                )
            )
        used = {0} | {tensor.buffer for subgraph in subgraphs for tensor in subgraph.tensors}
        used |= {entry.buffer for entry in self.metadata or []}
        used |= set() if self.metadata_buffer is None else set(self.metadata_buffer.tolist())
        buffers = [b if i in used else Record("Buffer") for i, b in enumerate(self.buffers)]
        while len(buffers) - 1 not in used:
            buffers.pop()
        codes, operators = self._used_codes(subgraphs)
        for subgraph, ops in zip(subgraphs, operators, strict=True):
            subgraph.operators = ops
        return self.graph.record.copy(
            operator_codes=codes,
            subgraphs=subgraphs,
            buffers=buffers,
            metadata=self.metadata,
            metadata_buffer=self.metadata_buffer,
            signature_defs=None
            if self.signatures is None
            else [_signature(s, numberings) for s in self.signatures],
        )

    def content(self) -> bytes:
        """The changed model as a file."""
        return b"".join(encode(self.model()))

    def _in_order(self, subgraph: int, ops: Sequence[Record | None]) -> Iterator[Record]:
        for index, op in enumerate(ops):
            front, back = self._around.get((subgraph, index), ((), ()))
            yield from front
            if op is not None:
                yield op
            yield from back

    def _used_codes(self, subgraphs: Sequence[Record]) -> tuple[list[Record], list[list[Record]]]:
        """The operator codes in use, and the operators with the codes' new numbers."""
        used = sorted({op.opcode_index for subgraph in subgraphs for op in subgraph.operators})
        numbering = {old: new for new, old in enumerate(used)}
        operators = [
            [op.copy(opcode_index=numbering[op.opcode_index]) for op in subgraph.operators]
            for subgraph in subgraphs
        ]
        return [self.codes[i] for i in used], operators


def operator(code: int, source: int, result: int, options: str) -> Record:
    """An operator from one tensor to one."""
    return Record(
        "Operator",
        opcode_index=code,
        inputs=np.array([source], dtype=np.int32),
        outputs=np.array([result], dtype=np.int32),
        builtin_options_type=schema().value("BuiltinOptions", options),
        builtin_options=Record(options),
    )


def _buffer(data: np.ndarray) -> Record:
    return Record("Buffer", data=np.ascontiguousarray(data).reshape(-1).view(np.uint8))


def _listed(record: Record, name: str) -> Iterable[Any]:
    values = getattr(record, name)
    return () if values is None else values


def _numbers(values: Iterable[int]) -> np.ndarray:
    return np.fromiter(values, dtype=np.int32)


def _renumbered(op: Record, numbering: Mapping[int, int]) -> Record:
    lists = {
        n: _numbers(numbering[int(i)] for i in getattr(op, n))
        for n in _TENSOR_LISTS
        if getattr(op, n) is not None
    }
    return op.copy(**lists)


def _signature(definition: Record, numberings: Sequence[Mapping[int, int]]) -> Record:
    numbering = numberings[definition.subgraph_index]

    def moved(entries: Sequence[Record] | None) -> list[Record]:
        return [entry.copy(tensor_index=numbering[entry.tensor_index]) for entry in entries or []]

    return definition.copy(inputs=moved(definition.inputs), outputs=moved(definition.outputs))
