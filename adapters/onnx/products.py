"""Products of two activations in a graph: what attention multiplies, and any other MatMul without a weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from lampq.adapters.onnx import naming
from lampq.adapters.onnx.flow import Flow
from lampq.core.treatments.roles import KEYS, LEFT, PROBABILITIES, QUERIES, RIGHT, VALUES
from lampq.core.values.product import Product

_SOFTMAX = ("Softmax",)
_REARRANGING = (
    "Reshape",
    "Transpose",
    "Unsqueeze",
    "Squeeze",
    "Flatten",
    "Identity",
    "Cast",
    "Expand",
    "Slice",
    "Split",
    "Gather",
    "Dropout",
)
# What may come between a product and its softmax: scales, masks, position biases; behind it, rows without a key.
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Where")
_FUSED = ("Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedMultiHeadAttention")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factors:
    """A product of two activations.

    Attributes:
        name: Of the product, as PyTorch models name it (`adapters.torch.rounding`).
        node: The operator; its first two inputs are the factors.
        sites: Names of the factors.
        sums: Axis of each factor that the product sums over, counted from the end.
    """

    name: str
    node: ir.Node
    sites: tuple[str, str]
    sums: tuple[int, int]

    @property
    def dtype(self) -> ir.DataType:
        """Type of the factors."""
        return next((v.dtype for v in self.node.inputs[:2] if v and v.dtype), ir.DataType.FLOAT)


def factors(flow: Flow) -> tuple[Factors, ...]:
    """The products of two activations, in order, named by what they do in attention."""
    softmax = _behind_softmax(flow)
    seen: Counter[str] = Counter()
    products = []

    def numbered(name: str) -> str:
        seen[name] += 1
        return f"{name}#{seen[name]}" if seen[name] > 1 else name

    for node in flow.nodes:
        if not _multiplies(flow, node):
            continue
        left, right = node.inputs[:2]
        what, roles = "product", (LEFT, RIGHT)
        if left in softmax or right in softmax:
            what, roles = "context", (PROBABILITIES, VALUES) if left in softmax else (VALUES, PROBABILITIES)
        elif node.outputs[0] in softmax.values():
            what, roles = "scores", (QUERIES, KEYS)
        path = naming.node_path(node)
        name = numbered(f"{path}@{what}")
        sites = numbered(f"{path}@{roles[0]}"), numbered(f"{path}@{roles[1]}")
        turned = [node.attributes.get_int(flag, 0) for flag in ("transA", "transB")]
        sums = -2 if turned[0] else -1, -1 if turned[1] else -2
        products.append(Factors(name=name, node=node, sites=sites, sums=sums))
    return tuple(products)


def fused(flow: Flow) -> tuple[str, ...]:
    """Names of operators that hold products of activations which nothing outside of them can reach."""
    return tuple(f"{node.name or '?'} ({node.op_type})" for node in flow.nodes if node.op_type in _FUSED)


def records(flow: Flow, shapes: Mapping[ir.Value, tuple[int, ...]], samples: int) -> tuple[Product, ...]:
    """What plans say of the products.

    Args:
        flow: The graph.
        shapes: Of the factors.
        samples: Of these shapes.
    """
    products = []
    for factor in factors(flow):
        left, right = (shapes[value] for value in factor.node.inputs[:2] if value is not None)
        rows = math.prod(left) // left[factor.sums[0]]
        columns = right[-3 - factor.sums[1]]
        products.append(
            Product(
                name=factor.name,
                left=factor.sites[0],
                right=factor.sites[1],
                left_values=max(1, math.prod(left) // samples),
                right_values=max(1, math.prod(right) // samples),
                macs=max(1, rows * columns * left[factor.sums[0]] // samples),
            )
        )
    return tuple(products)


def operands(flow: Flow) -> tuple[ir.Value, ...]:
    """The factors of all products."""
    values = (value for factor in factors(flow) for value in factor.node.inputs[:2])
    return tuple(dict.fromkeys(value for value in values if value is not None))


def _multiplies(flow: Flow, node: ir.Node) -> bool:
    return node.op_type in ("MatMul", "Gemm") and all(value in flow.active for value in node.inputs[:2])


def _behind_softmax(flow: Flow) -> Mapping[ir.Value, ir.Value | None]:
    """Result of a softmax, rearranged or not -> the product that the softmax is of."""
    source: dict[ir.Value, ir.Value] = {}
    behind: dict[ir.Value, ir.Value | None] = {}
    for node in flow.nodes:
        read = [value for value in node.inputs if value is not None]
        if _multiplies(flow, node):
            source[node.outputs[0]] = node.outputs[0]
        elif node.op_type in _SOFTMAX:
            behind[node.outputs[0]] = source.get(read[0])
        elif any(value in behind for value in read) and node.op_type in (*_REARRANGING, "Where"):
            of = next(behind[value] for value in read if value in behind)
            behind.update(dict.fromkeys(node.outputs, of))
        elif node.op_type in (*_REARRANGING, *_ELEMENTWISE):
            origin = next((source[value] for value in read if value in source), None)
            if origin is not None:
                source.update(dict.fromkeys(node.outputs, origin))
    return behind
