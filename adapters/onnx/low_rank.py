"""Factors of low rank beside products with a matrix: y = x W_hat + (x A) B in standard operators.

The factors are bytes behind Cast and Mul, which runtimes fold when they load a file. Where the input of a layer is
rounded, its factors read the rounded one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import integer
from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.opened import Opened
from lampq.adapters.onnx.sites import Site, Use
from lampq.core.quantizing.low_rank import Compensated, LowRank
from lampq.core.quantizing.quantizer import Codes
from lampq.core.values.errors import AdapterError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch:
    """The factors beside one product.

    Attributes:
        layer: Name of the layer.
        use: The product.
        node: The first product with a factor, which reads what the layer reads.
        result: What both factors give. It has the shape of the layer's output until `forget`.
        dtype: Type of the layer's input.
    """

    layer: str
    use: Use
    node: ir.Node
    result: ir.Value
    dtype: ir.DataType

    def forget(self) -> None:
        """Leave the shape of the result out of the file, as those of all new values are."""
        self.result.shape = None


def takers(opened: Opened) -> frozenset[str]:
    """Names of the layers that factors can stand beside."""
    graph = opened.flow.model.graph
    return frozenset(
        site.name
        for site in opened.sites
        if site.uses and all(_takes_branch(graph, site, use) for use in site.uses)
    )


def with_branches(
    emit: Emitter, sites: Sequence[Site], weights: Mapping[str, Codes]
) -> tuple[tuple[Site, ...], tuple[Branch, ...]]:
    """Put factors beside the products of layers.

    Args:
        emit: Writes into the graph.
        sites: Its sites.
        weights: Quantized weights by layer name; those that are `Compensated` get their factors.

    Returns:
        The sites as they are used now, and what was put beside them.

    Raises:
        AdapterError: A layer is no product with a matrix.
    """
    changed: list[Site] = []
    branches: list[Branch] = []
    for site in sites:
        weight = weights.get(site.name)
        if not isinstance(weight, Compensated):
            changed.append(site)
            continue
        with emit.ledger.owned_by(site.name):
            own = _beside(emit, site, weight.factors)
        branches += own
        changed.append(dataclasses.replace(site, uses=tuple(branch.use for branch in own)))
    return tuple(changed), tuple(branches)


def _beside(emit: Emitter, site: Site, factors: LowRank) -> list[Branch]:
    """Factors beside every use of a layer, stored once."""
    for use in site.uses:
        if not _takes_branch(emit.graph, site, use):
            raise AdapterError(
                f"layer {site.name}: factors of low rank stand beside products with a matrix in the main graph, not "
                f"beside this {use.node.op_type}; leave the layer out of --low-rank"
            )
    inner, outer = factors.inner, factors.outer
    stored = (
        _floats(emit, f"{site.name}.inner", inner.integers().T, inner.scale[None, :]),
        _floats(emit, f"{site.name}.outer", outer.integers(), outer.scale[:, None]),
    )
    return [_branch(emit, site, use, *stored) for use in site.uses]


def _takes_branch(graph: ir.Graph, site: Site, use: Use) -> bool:
    linear = use.slot.form == "linear" and integer.is_computable(site, use)
    return linear and use.node.graph is graph


def _branch(emit: Emitter, site: Site, use: Use, inner: ir.Value, outer: ir.Value) -> Branch:
    """The product under a name of its own, the factors behind the same input, and their sum in its place."""
    node, dtype = use.node, integer.use_dtype(site, use)
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha != 1.0:
        outer = emit.fold("Mul", [outer, emit.constant(np.float32(alpha))])
    if dtype != ir.DataType.FLOAT:
        inner, outer = (emit.fold("Cast", [value], to=dtype) for value in (inner, outer))
    product = emit.before(node, node.op_type, node.inputs, **node.attributes)
    narrow = emit.before(node, "MatMul", [use.activation, inner])
    wide = emit.before(node, "MatMul", [narrow, outer])
    # Whoever looks for biases is to see that this is none.
    wide.shape = node.outputs[0].shape
    emit.take_over(node, "Add", [product, wide])
    return Branch(
        layer=site.name,
        use=dataclasses.replace(use, node=_maker(product)),
        node=_maker(narrow),
        result=wide,
        dtype=dtype,
    )


def _floats(emit: Emitter, name: str, integers: np.ndarray, scale: np.ndarray) -> ir.Value:
    """A factor as floats: the product of bytes and scales."""
    stored = emit.initializer(np.ascontiguousarray(integers), name)
    scales = emit.initializer(scale, f"{name}.scale")
    return emit.fold("Mul", [emit.fold("Cast", [stored], to=ir.DataType.FLOAT), scales])


def _maker(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None  # It has just been made.
    return node
