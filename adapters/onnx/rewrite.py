"""Replace the float weights of a graph by quantized ones, layer by layer.

A weight whose inputs stay float becomes a float tensor again when the model is loaded: int8, Cast, Mul by
the scales. DequantizeLinear would say the same, but ONNX Runtime does not fold it: older versions compute it
in every run, 1.31 makes it a product with activations rounded to int8, at a relative error of 5e-3. Cast and
Mul are folded by all, so the model is exact and as fast as the float one.

A weight whose inputs are quantized too stays int8, behind DequantizeLinear: `lampq.adapters.onnx.integer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import integer, large
from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.integer import IntegerLayers, Weight
from lampq.adapters.onnx.ledger import Ledger
from lampq.adapters.onnx.low_rank import Branch
from lampq.adapters.onnx.products import Factors
from lampq.adapters.onnx.sites import Site, Use
from lampq.adapters.onnx.unpack import Unpacker
from lampq.core.quantizing.quantizer import Codes, from_rows
from lampq.core.values.activation_grid import ActivationGrid


class Rewriter:
    """Quantizes the weights of one model in place.

    Args:
        emit: Writes into a normalized model.
        container: `bitplane` or `int8`.
        integer_uses: Uses to compute with integers, see `integer.choose`.
    """

    def __init__(
        self, emit: Emitter, container: str, integer_uses: Mapping[Use, ActivationGrid | None]
    ) -> None:
        self._emit = emit
        self._container = container
        self._unpacker = Unpacker(self._emit)
        self._layers = IntegerLayers(self._emit)
        self._integer_uses = integer_uses

    def quantize(self, site: Site, quantized: Codes, activation: ActivationGrid | None = None) -> None:
        """Replace the weight of a site.

        Args:
            site: One of the model's own sites.
            quantized: Its weight, rows along `site.channel_axis`; its codes are looked at when the graph is written.
            activation: Grid of its input, or None.
        """
        pieces = large.cuts(site) if activation is None else []
        with self._emit.ledger.owned_by(site.name):
            if len(pieces) > 1:
                self._in_parts(site, quantized, pieces)
            else:
                self._whole(site, quantized, activation)

    def _whole(self, site: Site, quantized: Codes, activation: ActivationGrid | None) -> None:
        """Store a weight in one."""
        chosen: dict[Use, ActivationGrid] = {}
        if activation is not None:
            chosen = {use: activation for use in site.uses if use in self._integer_uses}
        # Something else may read the float weight: another kind of use, or its Shape.
        others = {node for node, _ in site.weight.uses()} - {_first_reader(use) for use in chosen}
        # A weight that is only multiplied by is stored the way the product wants it: a row for each input.
        turned = not others and site.form == "linear" and site.channel_axis == 0

        def codes() -> np.ndarray:
            array = from_rows(quantized.codes, site.shape, site.channel_axis)
            return np.ascontiguousarray(array.T) if turned else array

        stored = self._unpacker.add(
            site.name,
            codes,
            site.shape[::-1] if turned else site.shape,
            bits=quantized.bits,
            step=quantized.step,
            offset=quantized.offset,
            container=self._container,
        )
        weight = Weight(site=site, integers=stored, turned=turned, scale=quantized.scale)
        for use, grid in chosen.items():
            self._layers.rewrite(weight, use, grid, self._integer_uses[use])
        if activation is not None:
            for use in integer.rounded(self._emit.graph, site):
                if use not in chosen:
                    grid = integer.input_grid(use, activation)
                    self._layers.round(use.node, use.slot.data, grid, integer.use_dtype(site, use))
        if others:
            self._as_float(site, stored, quantized.scale)

    def round_branch(self, branch: Branch, activation: ActivationGrid) -> None:
        """Have the factors of a layer read what its weight reads."""
        with self._emit.ledger.owned_by(branch.layer):
            grid = integer.input_grid(branch.use, activation)
            self._layers.round(branch.node, 0, grid, branch.dtype)

    @property
    def ledger(self) -> Ledger:
        """What was made for which layer."""
        return self._emit.ledger

    def round_factors(self, products: Sequence[Factors], grids: Mapping[str, ActivationGrid]) -> None:
        """Round factors of products.

        Args:
            products: Products of the graph.
            grids: By site.
        """
        for product in products:
            for index, site in enumerate(product.sites):
                if site in grids:
                    with self._emit.ledger.owned_by(site):
                        self._layers.round(product.node, index, grids[site], product.dtype)

    def finish(self) -> None:
        """Complete the graph. Call once, after the last site."""
        self._emit.finish()

    def _as_float(self, site: Site, stored: ir.Value, scale: np.ndarray) -> None:
        """Give what still reads the float weight the product of integers and scales."""
        value = self._floats(site, site.name, site.shape, stored, scale)
        ir.convenience.replace_all_uses_with(site.weight, value)
        self._emit.prune([site.weight])

    def _in_parts(self, site: Site, quantized: Codes, pieces: Sequence[tuple[int, int]]) -> None:
        """Store a large weight as several, by channel."""
        axis, floats = site.channel_axis, []
        scales = quantized.scale.reshape(site.shape[axis], -1)

        def part(first: int, last: int, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
            def codes() -> np.ndarray:
                # Blocks are rows of their own.
                rows = quantized.codes.reshape(site.shape[axis], -1)[first:last]
                return np.ascontiguousarray(from_rows(rows, shape, axis))

            return codes

        for number, (first, last) in enumerate(pieces):
            shape = tuple(last - first if a == axis else side for a, side in enumerate(site.shape))
            name = f"{site.name}.part{number}"
            stored = self._unpacker.add(
                name,
                part(first, last, shape),
                shape,
                bits=quantized.bits,
                step=quantized.step,
                offset=quantized.offset,
                container=self._container,
            )
            floats.append(self._floats(site, name, shape, stored, scales[first:last].ravel()))
        large.rewrite(self._emit, site, floats)

    def _floats(
        self, site: Site, name: str, shape: tuple[int, ...], stored: ir.Value, scale: np.ndarray
    ) -> ir.Value:
        """A weight, or some channels of it, as floats: the product of integers and scales."""
        emit = self._emit
        grouped, factors = _scale_shape(shape, site.channel_axis, scale)
        if grouped is not None:
            stored = emit.fold("Reshape", [stored, emit.constant(np.array(grouped, dtype=np.int64))])
        scales = emit.initializer(factors, f"{name}.scale")
        value = emit.fold("Mul", [emit.fold("Cast", [stored], to=ir.DataType.FLOAT), scales])
        if grouped is not None:
            value = emit.fold("Reshape", [value, emit.constant(np.array(shape, dtype=np.int64))])
        return value if site.dtype == ir.DataType.FLOAT else emit.fold("Cast", [value], to=site.dtype)


def _scale_shape(
    shape: tuple[int, ...], axis: int, scale: np.ndarray
) -> tuple[tuple[int, ...] | None, np.ndarray]:
    """The shape in which a weight is multiplied by its scales, None for its own, and the scales to broadcast."""
    channels = shape[axis]
    if scale.size == channels:
        sides = [1] * len(shape)
        sides[axis] = -1
        return None, scale.reshape(sides)
    # A matrix in blocks along its inputs.
    blocks = scale.size // channels
    block = shape[1 - axis] // blocks
    if axis == 0:
        return (channels, blocks, block), scale.reshape(channels, blocks, 1)
    return (blocks, block, channels), np.ascontiguousarray(scale.reshape(channels, blocks).T[:, None, :])


def _first_reader(use: Use) -> ir.Node:
    return use.chain[0] if use.chain else use.node
