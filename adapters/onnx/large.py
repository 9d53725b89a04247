"""Weights too large to be unpacked when a file is loaded, cut along their output channels.

ONNX Runtime folds no constant of more than 1 GiB (its option `optimization.constant_folding_max_output_size_in_bytes`):
a larger weight would be unpacked again at every run. Products with some of the channels each give what one product
with all of them gives, next to each other.
"""

from __future__ import annotations

import itertools
import math

import onnx_ir as ir

from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.sites import Site

# Float bytes of one part: half of what is folded, as tables and copies come on top.
_MOST_BYTES = 1 << 29
_LIMIT_BYTES = 1 << 30
# Parts begin at multiples of this many channels, so that packed codes fill whole bytes as those of the whole do.
_STEP = 8
_PRODUCTS = ("MatMul", "Gemm")


def cuts(site: Site) -> list[tuple[int, int]]:
    """First and last channel (exclusive) of each part; one part where the weight is small or cannot be cut.

    It can where all that reads it are products of two matrices whose second is the weight as it is stored.
    """
    channels = site.shape[site.channel_axis]
    size = 4 * math.prod(site.shape)
    direct = {use.node for use in site.uses if _is_product(site, use.node)}
    if size < _LIMIT_BYTES or any(node not in direct for node, _ in site.weight.uses()):
        return [(0, channels)]
    width = max(_STEP, channels * _MOST_BYTES // size // _STEP * _STEP)
    edges = [*range(0, channels, width), channels]
    return list(itertools.pairwise(edges))


def rewrite(emit: Emitter, site: Site, parts: list[ir.Value]) -> None:
    """Give each product that reads a weight the parts of it, and put the results together.

    Args:
        emit: Where nodes go.
        site: The weight.
        parts: Its parts in order, in the layout of the whole.
    """
    for use in site.uses:
        node = use.node
        left = node.inputs[0]
        assert left is not None  # A product has two factors.
        settings = {
            name: a.value for name, a in node.attributes.items() if name in ("transA", "transB", "alpha")
        }
        pieces = [emit.before(node, node.op_type, [left, part], **settings) for part in parts]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None:
            emit.take_over(node, "Concat", pieces, axis=-1)
        else:
            joined = emit.before(node, "Concat", pieces, axis=-1)
            emit.take_over(node, "Add", [joined, bias])


def _is_product(site: Site, node: ir.Node) -> bool:
    """Whether a node multiplies by the whole weight from the right, channels last in the result."""
    if node.op_type not in _PRODUCTS or node.domain != "" or len(site.shape) != 2:
        return False
    if node.graph is not site.weight.graph:
        return False
    if [index for index, value in enumerate(node.inputs) if value is site.weight] != [1]:
        return False
    turned = "transB" in node.attributes and bool(node.attributes["transB"].as_int())
    plain = "beta" not in node.attributes or node.attributes["beta"].as_float() == 1.0
    return plain and site.channel_axis == (0 if turned else 1)
