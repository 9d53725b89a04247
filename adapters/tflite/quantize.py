"""A model's weights replaced by codes in containers, its operators told to read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lampq.adapters.tflite import containers, integers
from lampq.adapters.tflite.bitpacking import pack
from lampq.adapters.tflite.edit import Draft, operator
from lampq.adapters.tflite.flatbuffer import Record
from lampq.adapters.tflite.graph import Graph
from lampq.adapters.tflite.operands import DEPTHWISE, FULLY_CONNECTED, MATMUL, bias
from lampq.adapters.tflite.places import Site
from lampq.adapters.tflite.schema import schema
from lampq.adapters.tflite.weights import Weight
from lampq.core.quantizing.quantizer import Quantized, from_rows
from lampq.core.values.activation_grid import ActivationGrid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded:
    """A weight as it is going to be stored.

    Attributes:
        weight: Which one.
        width: Bits of the container.
        codes: Signed codes, int8, in the layout of the file.
        scale: float32, shape (C,).
        inputs: Grid of the layer's input, or None where it is quantized while running.
        outputs: Grid of the output of each of its sites; None as for the inputs.
        numbers: Numbers are made of the codes even where operators could compute with them.
    """

    weight: Weight
    width: int
    codes: np.ndarray
    scale: np.ndarray
    inputs: ActivationGrid | None = None
    outputs: Mapping[Site, ActivationGrid] | None = None
    numbers: bool = False

    @property
    def multiplied(self) -> bool:
        """Whether operators compute with the codes themselves; otherwise numbers are made of them first."""
        return containers.multiplied(self.weight, self.width, self.input_bits) and not self.numbers

    @property
    def input_bits(self) -> int | None:
        """Width of the fixed integers that its operators read, or None."""
        return None if self.inputs is None else self.inputs.bits

    @property
    def axis(self) -> int:
        """Axis of the channels in `codes`."""
        weight = self.weight
        return 0 if self.multiplied and MATMUL in weight.op_names else weight.channel_axis

    def values(self) -> np.ndarray:
        """What the codes stand for, float32, in the shape of the float weight."""
        weight = self.weight
        along = [1] * self.codes.ndim
        along[self.axis] = -1
        numbers: np.ndarray = self.codes.astype(np.float32) * self.scale.reshape(along)
        if self.axis == weight.channel_axis and self.codes.shape == weight.shape:
            return numbers
        return from_rows(numbers, weight.shape, weight.channel_axis)


def code(weight: Weight, quantized: Quantized, width: int, inputs: ActivationGrid | None = None) -> Coded:
    """A quantized weight in the layout of the file: as stored, but a product's operand as a linear layer has it.

    A grid of the input is left out where no operator multiplies codes by codes.
    """
    fixed = inputs if inputs is not None and containers.multiplied(weight, width, inputs.bits) else None
    codes = quantized.integers()
    read = None if fixed is None else fixed.bits
    linear = MATMUL in weight.op_names and containers.multiplied(weight, width, read)
    if not linear:
        codes = from_rows(codes, weight.shape, weight.channel_axis)
    return Coded(weight=weight, width=width, codes=codes, scale=quantized.scale, inputs=fixed)


def as_numbers(item: Coded) -> Coded:
    """The same codes in the layout of the float weight, made numbers before they are read."""
    weight = item.weight
    same = item.axis == weight.channel_axis and item.codes.shape == weight.shape
    codes = item.codes if same else from_rows(item.codes, weight.shape, weight.channel_axis)
    return dataclasses.replace(item, codes=codes, numbers=True)


class Rewriter:
    """Applies coded weights to a draft.

    Args:
        draft: The model under change.
    """

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.graph: Graph = draft.graph
        # One array of zeros for all weights of as many channels: the file then holds it once.
        self._zeros: dict[int, np.ndarray] = {}
        self._no_biases: dict[int, np.ndarray] = {}
        self._fed: dict[tuple[int, int, ActivationGrid], int] = {}
        self._biases: dict[tuple[int, int], np.ndarray] = {}

    def zero_points(self, channels: int) -> np.ndarray:
        """The zero points of a weight."""
        return self._zeros.setdefault(channels, np.zeros(channels, dtype=np.int64))

    def apply(self, coded: Coded) -> None:
        """Store a weight as codes wherever it is used."""
        weight = coded.weight
        for site in weight.sites:
            self._store_bias(site)
        numbers = not coded.multiplied
        along = weight.channel_axis if numbers or DEPTHWISE in weight.op_names else 0
        parameters = Record(
            "QuantizationParameters",
            scale=coded.scale,
            zero_point=self.zero_points(len(coded.scale)),
            quantized_dimension=along,
        )
        data = pack(coded.codes, coded.width)
        fields = {
            "type": schema().value("TensorType", containers.TENSOR_TYPES[coded.width]),
            "shape_signature": None,
            "quantization": parameters,
        }
        if numbers:
            version = containers.dequantize_version(coded.width)
            self.draft.set_codes(weight, data, version, **fields)
            return
        self.draft.set_data(weight, data, shape=np.array(coded.codes.shape, dtype=np.int32), **fields)
        for site in weight.sites:
            self._adapt(site, coded)

    def _store_bias(self, site: Site) -> None:
        """Store a float16 bias as float32: beside codes, runtimes accept only one that is a constant."""
        subgraph, draft = self.graph.subgraphs[site.subgraph], self.draft
        tensor = bias(subgraph.ops[site.op])
        step = None if tensor is None else subgraph.producers.get(tensor)
        if (
            tensor is None
            or step is None
            or step.name != "DEQUANTIZE"
            or (site.subgraph, tensor) in self._biases
        ):
            return
        stored = subgraph.constant(step.inputs[0])
        if stored is None or subgraph.dtype(step.inputs[0]) != "FLOAT16":
            return
        values = np.ascontiguousarray(stored, dtype=np.float32)
        self._biases[site.subgraph, tensor] = values
        draft.tensors[site.subgraph][tensor] = subgraph.tensors[tensor].copy(buffer=draft.add_buffer(values))
        draft.ops[site.subgraph][step.index] = None
        draft.discard(site.subgraph, step.inputs[0])

    def _adapt(self, site: Site, coded: Coded) -> None:
        draft, op = self.draft, self.graph.subgraphs[site.subgraph].ops[site.op]
        name = FULLY_CONNECTED if site.op_name == MATMUL else site.op_name
        least = containers.version(name, coded.width, coded.input_bits)
        if site.op_name == MATMUL:
            # Products have no narrow containers, and their per-channel scales no version that old runtimes
            # refuse.
            draft.change(
                site.subgraph,
                site.op,
                inputs=np.array([op.inputs[0], site.tensor, -1], dtype=np.int32),
                builtin_options_type=schema().value("BuiltinOptions", "FullyConnectedOptions"),
                builtin_options=Record("FullyConnectedOptions", keep_num_dims=True),
            )
            present = least
        else:
            present = draft.version(op.record)
        draft.change(site.subgraph, site.op, opcode_index=draft.code(name, max(present, least)))
        if coded.inputs is not None and coded.outputs is not None:
            self._make_static(site, coded, coded.inputs, coded.outputs[site])

    def _make_static(self, site: Site, coded: Coded, inputs: ActivationGrid, outputs: ActivationGrid) -> None:
        """Feed an operator integers and let it give integers, float again right behind it."""
        draft, subgraph = self.draft, self.graph.subgraphs[site.subgraph]
        op = subgraph.ops[site.op]
        source, result = op.inputs[0], op.outputs[0]
        fed = self._feed(site, source, inputs)
        static = draft.add_tensor(
            site.subgraph,
            _on_grid(subgraph.tensors[result], outputs),
        )
        added, operands = bias(op), [fed, site.tensor]
        steps = coded.scale * np.float32(inputs.scale)
        if added is not None:
            operands.append(self._bias(site, added, steps, inputs.bits))
        elif inputs.bits == integers.WIDE:
            operands.append(self._no_bias(site, steps))
        draft.change(
            site.subgraph,
            site.op,
            inputs=np.array(operands, dtype=np.int32),
            outputs=np.array([static], dtype=np.int32),
        )
        if added is not None:
            draft.discard(site.subgraph, added)
        code = draft.code("DEQUANTIZE", integers.DEQUANTIZE_VERSIONS[outputs.bits])
        back = operator(code, static, result, "DequantizeOptions")
        draft.surround(site.subgraph, site.op, after=[back])

    def _feed(self, site: Site, source: int, grid: ActivationGrid) -> int:
        """The integer form of a tensor; layers that read the same one on the same grid share it."""
        key = (site.subgraph, source, grid)
        if key not in self._fed:
            record = self.graph.subgraphs[site.subgraph].tensors[source]
            tensor = self.draft.add_tensor(site.subgraph, _on_grid(record, grid))
            code = self.draft.code("QUANTIZE", integers.QUANTIZE_VERSIONS[grid.bits])
            step = operator(code, source, tensor, "QuantizeOptions")
            self.draft.surround(site.subgraph, site.op, before=[step])
            self._fed[key] = tensor
        return self._fed[key]

    def _bias(self, site: Site, tensor: int, scale: np.ndarray, bits: int) -> int:
        """A float bias as integers in the steps of the products."""
        subgraph = self.graph.subgraphs[site.subgraph]
        stored = self._biases.get((site.subgraph, tensor), subgraph.constant(tensor))
        values = np.asarray(stored, dtype=np.float64).reshape(-1)
        codes = integers.bias_codes(values, scale, bits)
        return self._add_bias(site, subgraph.tensors[tensor], codes, scale, bits)

    def _no_bias(self, site: Site, scale: np.ndarray) -> int:
        """A bias of zeros, stored once for all layers as wide."""
        like = self.graph.subgraphs[site.subgraph].tensors[site.tensor]
        channels = len(scale)
        shape = np.array([channels], dtype=np.int32)
        record = Record("Tensor", name=(like.name or b"") + b"/bias", shape=shape, has_rank=True)
        zeros = self._no_biases.setdefault(channels, np.zeros(channels, dtype=np.int64))
        return self._add_bias(site, record, zeros, scale, integers.WIDE)

    def _add_bias(self, site: Site, record: Record, codes: np.ndarray, scale: np.ndarray, bits: int) -> int:
        parameters = Record(
            "QuantizationParameters",
            scale=np.array(scale, dtype=np.float32),
            zero_point=self.zero_points(len(scale)),
        )
        changed = record.copy(
            buffer=self.draft.add_buffer(codes),
            type=schema().value("TensorType", integers.BIAS_TYPES[bits]),
            quantization=parameters,
        )
        return self.draft.add_tensor(site.subgraph, changed)


def _on_grid(tensor: Record, grid: ActivationGrid) -> Record:
    """The integer form of a float activation."""
    name = (tensor.name or b"") + b"/" + integers.TYPES[grid.bits].lower().encode()
    return tensor.copy(name=name, **integers.fields(grid))
