"""Layers that runtimes compute with integers: uint8 inputs and int8 weights, each behind DequantizeLinear.

ONNX Runtime recognizes the pattern and runs MatMulIntegerToFloat or QLinearConv. What keeps it from doing so
was measured with versions 1.17 to 1.31, and shapes the forms below:

- MatMul + Add(bias) with static shapes is first fused to a float Gemm, which then stays float. The same sum
  written as Sub(-bias) is exact and is never fused, whatever the shapes.
- Gemm with a float bias stays float, and with an int32 bias wants zero points for every channel, or fails
  when it runs. It becomes MatMul and Sub.
- MatMul + Relu stays float unless the Relu leads to a quantization that makes it redundant. Subtracting zeros
  in between, one for each channel, keeps them apart; a single zero would be optimized away.
- Conv needs a quantized output, and before 1.31 an int32 bias. Where nothing quantizes its output, it reads its rounded
  input as floats: ConvInteger would be exact too, and takes five times as long as the float convolution.

x86 processors without VNNI add pairs of products in 16 bits, where 2 * 255 * 127 overflows. Integers of up to
6 bits cannot, which is why codes become small integers and are not shifted up to fill the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.sites import Site, Use
from lampq.adapters.onnx.weights import TAPPED
from lampq.core.values.activation_grid import ActivationGrid

# Integer kernels multiply bytes.
_BYTE = 8
# Operators that runtimes try to absorb into the quantized layer before them.
_CLIPPING = ("Relu", "Clip")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weight:
    """The int8 weight of a site.

    Attributes:
        site: The site.
        integers: int8 value.
        turned: Whether it is stored transposed against the site's shape.
        scale: One factor per channel, float32.
    """

    site: Site
    integers: ir.Value
    turned: bool
    scale: np.ndarray


class IntegerLayers:
    """Rewrites uses of quantized weights for integer kernels.

    Args:
        emitter: Where nodes go.
    """

    def __init__(self, emitter: Emitter) -> None:
        self._emit = emitter

    def rewrite(
        self, weight: Weight, use: Use, activation: ActivationGrid, output: ActivationGrid | None
    ) -> None:
        """Compute one use, of those that `choose` found, with integers.

        Args:
            weight: The weight.
            use: One of its site's uses.
            activation: Grid of the input.
            output: Grid to put on the output of a convolution; None where its readers quantize it.
        """
        single = use_dtype(weight.site, use) == ir.DataType.FLOAT
        activation = input_grid(use, activation)
        inputs = self._quantized(use.activation, activation, single)
        if use.slot.form == "conv":
            self._rewrite_conv(weight, use, inputs, activation, output)
        else:
            self._rewrite_linear(weight, use, inputs)

    def round(self, node: ir.Node, index: int, grid: ActivationGrid, dtype: ir.DataType) -> None:
        """Have an operator read an input from a grid, as floats."""
        read = node.inputs[index]
        assert read is not None  # Sites are inputs that are there.
        value = self._quantized(read, grid, dtype == ir.DataType.FLOAT)
        if dtype != ir.DataType.FLOAT:
            value = self._emit.before(node, "Cast", [value], to=dtype)
        node.replace_input_with(index, value)

    def _quantized(self, value: ir.Value, grid: ActivationGrid, single: bool) -> ir.Value:
        """`value` behind QuantizeLinear and DequantizeLinear, once for all layers that read it alike."""

        def make() -> ir.Value:
            source = value if single else self._emit.after(value, "Cast", [value], to=ir.DataType.FLOAT)
            return self._pair(source, grid)

        return self._emit.share(("input", value.name, grid), make)

    def _pair(self, value: ir.Value, grid: ActivationGrid) -> ir.Value:
        emit = self._emit
        codes_of = np.uint8 if grid.bits <= _BYTE else np.uint16
        if grid.bits < _BYTE:
            limits = [emit.constant(np.float32(limit)) for limit in (grid.low, grid.high)]
            value = emit.after(value, "Clip", [value, *limits])
        parameters = [emit.constant(np.float32(grid.scale)), emit.constant(codes_of(grid.zero_point))]
        codes = emit.after(value, "QuantizeLinear", [value, *parameters])
        return emit.after(codes, "DequantizeLinear", [codes, *parameters])

    def _dequantized(self, weight: Weight, *, transposed: bool, axis: int, factor: float) -> list[ir.Value]:
        """A DequantizeLinear of its own for every use, as runtimes want it, and its scale."""
        emit, integers = self._emit, weight.integers
        if transposed != weight.turned:
            integers = emit.fold("Transpose", [integers], perm=[1, 0])
        scale = emit.initializer(weight.scale * np.float32(factor), f"{weight.site.name}.scale")
        return [emit.fold("DequantizeLinear", [integers, scale], axis=axis), scale]

    def _rewrite_linear(self, weight: Weight, use: Use, inputs: ir.Value) -> None:
        emit, node = self._emit, use.node
        gemm = node.op_type == "Gemm"
        alpha, beta = (_number(node, "alpha"), _number(node, "beta")) if gemm else (1.0, 1.0)
        bias = node.inputs[2] if gemm and len(node.inputs) > 2 else None
        values, _ = self._dequantized(weight, transposed=weight.site.channel_axis == 0, axis=1, factor=alpha)
        dtype = use_dtype(weight.site, use)
        if dtype == ir.DataType.FLOAT and bias is None:
            product = emit.take_over(node, "MatMul", [inputs, values])
            self._keep_apart(product, channels=len(weight.scale))
            return
        product = emit.before(node, "MatMul", [inputs, values])
        if bias is None:
            emit.take_over(node, "Cast", [product], to=dtype)
            return
        if dtype != ir.DataType.FLOAT:
            product = emit.before(node, "Cast", [product], to=dtype)
        emit.take_over(node, "Sub", [product, self._negative(bias, beta)])

    def _keep_apart(self, product: ir.Value, channels: int) -> None:
        """Put between a product and what follows it what is not fused: see the list at the top."""
        uses = product.uses()
        if len(uses) != 1 or product.is_graph_output():
            return
        emit = self._emit
        ((node, index),) = uses
        if node.domain != "" or node.op_type not in ("Add", *_CLIPPING):
            return
        if node.op_type != "Add":
            nothing = emit.fold("ConstantOfShape", [emit.constant(np.array([channels]))])
            node.replace_input_with(index, emit.before(node, "Sub", [product, nothing]))
            return
        other = node.inputs[1 - index]
        if other is None or other is product:
            return
        if constant(other) is not None:
            emit.take_over(node, "Sub", [product, self._negative(other, 1.0)])
        elif other.shape is None or len(other.shape) <= 2:
            # Of more axes, it is no bias to any fusion.
            emit.take_over(node, "Sub", [product, emit.before(node, "Neg", [other])])

    def _negative(self, value: ir.Value, factor: float) -> ir.Value:
        """A constant times -`factor`, once for all that ask for it."""

        def make() -> ir.Value:
            array = np.asarray(constant(value))
            negative = (array * array.dtype.type(-factor)).astype(array.dtype, copy=False)
            return self._emit.initializer(negative, f"{value.name}.negative")

        return self._emit.share(("negative", value.name, factor), make)

    def _rewrite_conv(
        self,
        weight: Weight,
        use: Use,
        inputs: ir.Value,
        activation: ActivationGrid,
        output: ActivationGrid | None,
    ) -> None:
        emit, node = self._emit, use.node
        values, scale = self._dequantized(weight, transposed=False, axis=0, factor=1.0)
        operands = [inputs, values]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            operands.append(self._integer_bias(node.inputs[2], weight.scale, scale, activation))
        result = emit.take_over(node, "Conv", operands, **node.attributes)
        if output is None:
            return
        end = absorbed(result)
        readers = end.uses()
        coarse = self._pair(end, output if end is result else clipped(output))
        for reader, index in readers:
            reader.replace_input_with(index, coarse)

    def _integer_bias(
        self, bias: ir.Value, factors: np.ndarray, scale: ir.Value, activation: ActivationGrid
    ) -> ir.Value:
        """The bias as int32 on the grid of the products, or as it is where int32 cannot hold it."""
        emit = self._emit
        steps = factors.astype(np.float64) * activation.scale
        integers = np.rint(np.asarray(constant(bias), dtype=np.float64) / steps)
        if not (np.abs(integers) < 2**31).all():
            return bias
        stored = emit.initializer(integers.astype(np.int32), f"{bias.name}.int32")
        both = emit.fold("Mul", [scale, emit.constant(np.float32(activation.scale))])
        return emit.fold("DequantizeLinear", [stored, both], axis=0)


def choose(
    graph: ir.Graph,
    sites: Sequence[Site],
    activations: Mapping[str, ActivationGrid],
    outputs: Mapping[str, ActivationGrid],
) -> dict[Use, ActivationGrid | None]:
    """The uses that integer kernels can compute, each with the grid that its output is to be put on, if any.

    Others read their rounded input as floats (see `rounded`).

    Args:
        graph: The graph of the sites.
        sites: Its quantizable weights.
        activations: Grids of their inputs by layer name; layers that are missing keep float inputs.
        outputs: Grids of the outputs of convolutions by layer name. A convolution that is missing here is
            computed with integers where all its readers quantize its output alike.
    """
    order = {node: position for position, node in enumerate(graph)}
    uses = [(use, site) for site in sites if site.name in activations for use in rounded(graph, site)]
    chosen: dict[Use, ActivationGrid | None] = {}
    readers: dict[tuple[ir.Node, int], ActivationGrid] = {}
    # From the back, so that the readers of an output are known before the layer that computes it.
    for use, site in sorted(uses, key=lambda pair: -order[pair[0].node]):
        readers[use.node, use.slot.data] = input_grid(use, activations[site.name])
        if activations[site.name].bits > _BYTE or not is_computable(site, use):
            continue
        grid = None
        if use.slot.form == "conv":
            end = absorbed(use.node.outputs[0])
            if end.is_graph_output():
                continue
            readings = {readers.get((node, index)) for node, index in end.uses()}
            if len(readings) != 1 or None in readings:
                grid = outputs.get(site.name)
                if grid is None:
                    continue
        chosen[use] = grid
    return chosen


def rounded(graph: ir.Graph, site: Site) -> tuple[Use, ...]:
    """The uses of a weight whose input is a tensor of the main graph that can be rounded."""
    return tuple(use for use in site.uses if use.slot.form in TAPPED and use.node.graph is graph)


def is_computable(site: Site, use: Use) -> bool:
    """Whether a use is a convolution, or a product with a matrix from the right, as its site's record has it."""
    node = use.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if node.domain != "" or use.index != 1 or (bias is not None and constant(bias) is None):
        return False
    turns = [step for step in use.chain if step.op_type == "Transpose"]
    if node.op_type == "Conv":
        return not turns and use_dtype(site, use) == ir.DataType.FLOAT
    if len(site.shape) != 2:
        return False
    turned = sum(list(step.attributes.get_ints("perm", (1, 0))) == [1, 0] for step in turns) % 2
    # A shared weight may have its channels along the other axis elsewhere.
    if use.slot.channel_axis != (1 - site.channel_axis if turned else site.channel_axis):
        return False
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 0)


def absorbed(value: ir.Value) -> ir.Value:
    """The value after the Relu that integer kernels absorb."""
    while len(value.uses()) == 1 and not value.is_graph_output():
        ((node, _),) = value.uses()
        if node.op_type != "Relu" or node.domain != "":
            break
        value = node.outputs[0]
    return value


def input_grid(use: Use, grid: ActivationGrid) -> ActivationGrid:
    """The grid for the input of a use: behind a Relu nothing below 0 is worth a code."""
    producer = use.activation.producer()
    return clipped(grid) if producer is not None and producer.op_type == "Relu" else grid


def clipped(grid: ActivationGrid) -> ActivationGrid:
    """The part of a grid from 0 up, in as many codes: for values after Relu."""
    return ActivationGrid.from_range(0.0, grid.high, grid.bits)


def use_dtype(site: Site, use: Use) -> ir.DataType:
    """Type of the weight, and so of the activation, at a use."""
    casts = [node for node in use.chain if node.op_type == "Cast"]
    return ir.DataType(casts[-1].attributes["to"].as_int()) if casts else site.dtype


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array behind a value that no run changes, or None."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type != "Identity":
            return None
        value = node.inputs[0]
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def _number(node: ir.Node, name: str) -> float:
    return float(node.attributes.get_float(name, 1.0))
