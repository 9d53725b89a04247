"""Scales that a converter has multiplied into a weight, found again so that the weight can be recognised.

Converters fold the scale of a normalization into the layer behind it: what is stored is W diag(s). Where the
scale is still in the graph, because the normalized values are used elsewhere too (post-norm transformers),
the weight of the original model is W = stored / s. Where it is not (pre-norm transformers), nothing tells the
two apart.
"""

from __future__ import annotations

import numpy as np

from lampq.adapters.tflite.graph import Graph, text
from lampq.adapters.tflite.operands import FULLY_CONNECTED
from lampq.adapters.tflite.weights import Weight

# Dividing by less would lose the weight in rounding.
_SMALLEST = 1e-4


def unfolded(graph: Graph, weight: Weight, values: np.ndarray) -> np.ndarray | None:
    """The weight before a normalization's scale was folded into it, or None where no such scale is found.

    Args:
        graph: The model.
        weight: The weight.
        values: Its stored values.
    """
    scale = _scale(graph, weight)
    if scale is None or np.abs(scale).min() < _SMALLEST * np.abs(scale).max():
        return None
    unfolded: np.ndarray = values / scale
    return unfolded


def _scale(graph: Graph, weight: Weight) -> np.ndarray | None:
    """A constant that multiplies the layer's input elsewhere, if its name speaks of a normalization."""
    site = weight.sites[0]
    subgraph = graph.subgraphs[site.subgraph]
    op = subgraph.ops[site.op]
    names = [text(subgraph.tensors[i].name).lower() for i in (site.stored, *op.outputs)]
    if site.op_name != FULLY_CONNECTED or not any("norm" in name for name in names):
        return None
    for user, slot in subgraph.consumers.get(op.inputs[0], []):
        if user.name == "MUL" and len(user.inputs) == 2:
            factor = user.inputs[1 - slot]
            values = (
                subgraph.constant(factor) if factor >= 0 and subgraph.dtype(factor) == "FLOAT32" else None
            )
            if values is not None and values.size == weight.shape[1] == values.shape[-1] > 1:
                return values.reshape(-1)
    return None
