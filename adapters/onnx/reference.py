"""What a written model should compute: the float model, weights and inputs rounded in float arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import integer
from lampq.adapters.onnx.decisions import Decisions
from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.flow import trace
from lampq.adapters.onnx.opset import fresh_graph
from lampq.adapters.onnx.products import factors
from lampq.adapters.onnx.sites import Site
from lampq.adapters.onnx.variant import Variant
from lampq.core.quantizing.quantizer import Codes, weight_of
from lampq.core.values.activation_grid import ActivationGrid

# The first operator set with Round, and with Clip between values that are inputs.
ROUNDING_OPSET = 11


def reference(variant: Variant, decisions: Decisions, weights: Mapping[str, Codes]) -> ir.Model:
    """The float model with rounded weights, and with inputs rounded by elementary arithmetic.

    Nothing in it is a quantization operator, so no runtime treats it as a quantized model.
    """
    graph, sites = fresh_graph(variant, ROUNDING_OPSET if decisions.grids else 1)
    products = factors(trace(graph)) if decisions.factors else ()
    chosen = integer.choose(graph.graph, sites, decisions.activations, decisions.outputs)
    rounding = _Rounding(Emitter(graph))
    for site in sites:
        if site.name in weights:
            _replace_weight(site, weights[site.name])
        for use in integer.rounded(graph.graph, site) if site.name in decisions.activations else ():
            grid = integer.input_grid(use, decisions.activations[site.name])
            rounded = rounding.of(use.activation, grid, integer.use_dtype(site, use))
            use.node.replace_input_with(use.slot.data, rounded)
            output = chosen.get(use)
            if output is not None:
                rounding.of_output(use.node.outputs[0], output)
    for product in products:
        for index, name in enumerate(product.sites):
            if name in decisions.factors:
                value = product.node.inputs[index]
                assert value is not None  # A product has two factors.
                rounded = rounding.of(value, decisions.factors[name], product.dtype)
                product.node.replace_input_with(index, rounded)
    return graph


def _replace_weight(site: Site, quantized: Codes) -> None:
    dtype = site.dtype

    def make() -> ir.TensorProtocol:
        array = weight_of(quantized, site.shape, site.channel_axis)
        return ir.Tensor(array.astype(dtype.numpy(), copy=False), dtype=dtype, name=site.weight.name)

    site.weight.const_value = ir.LazyTensor(make, dtype, ir.Shape(site.shape), name=site.weight.name)


class _Rounding:
    """Values moved to grids by Div, Round, Clip and Mul."""

    def __init__(self, emitter: Emitter) -> None:
        self._emit = emitter
        self._made: dict[tuple[ir.Value, ActivationGrid], ir.Value] = {}

    def of(self, value: ir.Value, grid: ActivationGrid, dtype: ir.DataType) -> ir.Value:
        """`value` on a grid."""
        if (value, grid) not in self._made:
            self._made[value, grid] = self._make(value, grid, dtype)
        return self._made[value, grid]

    def of_output(self, value: ir.Value, grid: ActivationGrid) -> None:
        """Let all that read an output, after a Relu of its own, read it on a grid."""
        end = integer.absorbed(value)
        readers = end.uses()
        rounded = self._make(end, grid if end is value else integer.clipped(grid), ir.DataType.FLOAT)
        for node, index in readers:
            node.replace_input_with(index, rounded)

    def _make(self, value: ir.Value, grid: ActivationGrid, dtype: ir.DataType) -> ir.Value:
        after, constant = self._emit.after, self._emit.constant
        scale, zero, low, high = (constant(np.float32(v)) for v in (grid.scale, grid.zero_point, 0, grid.top))
        if dtype != ir.DataType.FLOAT:
            value = after(value, "Cast", [value], to=ir.DataType.FLOAT)
        value = after(value, "Div", [value, scale])
        value = after(value, "Round", [value])
        value = after(value, "Add", [value, zero])
        value = after(value, "Clip", [value, low, high])
        value = after(value, "Sub", [value, zero])
        value = after(value, "Mul", [value, scale])
        return value if dtype == ir.DataType.FLOAT else after(value, "Cast", [value], to=dtype)
