"""Which share of a file's float numbers lampq takes for layers, counted in the file itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Bytes of float constants.

    Attributes:
        matrices: Share of those with two axes or more (of length above 1) that are layers.
        all: Share of all that are layers.
        rest: What is no layer -> bytes.
    """

    matrices: float
    all: float
    rest: Mapping[str, int]


def of(path: Path, described: Mapping[str, Any]) -> Coverage:
    """The coverage of a file.

    Args:
        path: An ONNX or TFLite file.
        described: What `lampq inspect --json` says of it.
    """
    constants = list(_onnx(path) if path.suffix == ".onnx" else _tflite(path))
    # Layers are told by how many numbers they have: names and layouts are lampq's own.
    layers = Counter(int(layer["weights"]) for layer in described["layers"])
    rest: Counter[str] = Counter()
    matrices = 0
    for shape, size in sorted(constants, key=lambda pair: _axes(pair[0]), reverse=True):
        numbers = int(np.prod(shape))
        matrices += size if _axes(shape) > 1 else 0
        if layers[numbers]:
            layers[numbers] -= 1
        elif _axes(shape) < 2:
            rest["vectors"] += size
        else:
            rest["below 64 numbers" if numbers < 64 else "x".join(map(str, shape))] += size
    total = sum(size for _, size in constants)
    lost = sum(size for name, size in rest.items() if name != "vectors")
    return Coverage(
        matrices=1 - lost / max(matrices, 1), all=1 - sum(rest.values()) / max(total, 1), rest=dict(rest)
    )


def _axes(shape: tuple[int, ...]) -> int:
    return sum(side > 1 for side in shape)


def _onnx(path: Path) -> Iterator[tuple[tuple[int, ...], int]]:
    import onnx

    graph = onnx.load(path).graph
    nodes = [attribute.t for node in graph.node if node.op_type == "Constant" for attribute in node.attribute]
    for tensor in [*graph.initializer, *nodes]:
        # Codes of a quantizer stand for floats.
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
            yield tuple(tensor.dims), 4 * int(np.prod(tensor.dims))
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
            array = onnx.numpy_helper.to_array(tensor)
            yield array.shape, array.nbytes


def _tflite(path: Path) -> Iterator[tuple[tuple[int, ...], int]]:
    from lampq.adapters.tflite.graph import Graph

    for subgraph in Graph(path.read_bytes()).subgraphs:
        for index in range(len(subgraph.tensors)):
            array = subgraph.constant(index)
            if array is not None and subgraph.dtype(index).lower().startswith("float"):
                yield subgraph.shape(index), array.nbytes
