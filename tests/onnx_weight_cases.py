"""Every way a weight may stand in an ONNX graph, with its stored shape, its channels and how often it is used."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_models import normal

node = helper.make_node


def _constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def _bfloat16(name: str, value: np.ndarray) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.BFLOAT16, value.shape, value.ravel().tolist())


X = {"x": [2, 16]}
IMAGE = {"x": [2, 4, 6, 6]}
# name: nodes, weights, inputs, outputs, stored shape, channel axis, weights per output, positions
STANDING = {
    "matmul": ([node("MatMul", ["x", "w"], ["y"])], {"w": normal(16, 12)}, X, [2, 12], (16, 12), 1, 16, 1),
    "matmul of rank 3": (
        [node("MatMul", ["x", "w"], ["y"])],
        {"w": normal(1, 16, 12)},
        {"x": [2, 5, 16]},
        [2, 5, 12],
        (1, 16, 12),
        2,
        16,
        5,
    ),
    "matmul, weight on the left": (
        [node("MatMul", ["w", "x"], ["y"])],
        {"w": normal(12, 16)},
        {"x": [2, 16, 5]},
        [2, 12, 5],
        (12, 16),
        0,
        16,
        5,
    ),
    "gemm": ([node("Gemm", ["x", "w"], ["y"])], {"w": normal(16, 12)}, X, [2, 12], (16, 12), 1, 16, 1),
    "gemm transB": (
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5)],
        {"w": normal(12, 16), "b": normal(12)},
        X,
        [2, 12],
        (12, 16),
        0,
        16,
        1,
    ),
    "gemm transA": (
        [node("Gemm", ["x", "w"], ["y"], transA=1)],
        {"w": normal(2, 32)},
        {"x": [2, 5]},
        [5, 32],
        (2, 32),
        1,
        2,
        2,
    ),
    "gemm, weight on the left": (
        [node("Gemm", ["w", "x"], ["y"], transB=1)],
        {"w": normal(12, 16)},
        X,
        [12, 2],
        (12, 16),
        0,
        16,
        1,
    ),
    "gemm, turned weight on the left": (
        [node("Gemm", ["w", "x"], ["y"], transA=1, transB=1)],
        {"w": normal(16, 12)},
        X,
        [12, 2],
        (16, 12),
        1,
        16,
        1,
    ),
    "conv": (
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        {"w": normal(3, 4, 3, 3)},
        IMAGE,
        [2, 3, 6, 6],
        (3, 4, 3, 3),
        0,
        36,
        36,
    ),
    "grouped conv": (
        [node("Conv", ["x", "w"], ["y"], group=2)],
        {"w": normal(6, 2, 3, 3)},
        IMAGE,
        [2, 6, 4, 4],
        (6, 2, 3, 3),
        0,
        18,
        16,
    ),
    "conv of one axis": (
        [node("Conv", ["x", "w"], ["y"])],
        {"w": normal(6, 4, 3)},
        {"x": [2, 4, 9]},
        [2, 6, 7],
        (6, 4, 3),
        0,
        12,
        7,
    ),
    "conv of three axes": (
        [node("Conv", ["x", "w"], ["y"])],
        {"w": normal(4, 2, 2, 2, 2)},
        {"x": [2, 2, 3, 3, 3]},
        [2, 4, 2, 2, 2],
        (4, 2, 2, 2, 2),
        0,
        16,
        8,
    ),
    "transposed conv": (
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])],
        {"w": normal(4, 5, 2, 2)},
        IMAGE,
        [2, 5, 12, 12],
        (4, 5, 2, 2),
        1,
        16,
        36,
    ),
    "behind a transpose": (
        [node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])],
        {"w": normal(12, 16)},
        X,
        [2, 12],
        (12, 16),
        0,
        16,
        1,
    ),
    "behind identity and a default transpose": (
        [node("Identity", ["w"], ["i"]), node("Transpose", ["i"], ["t"]), node("Gemm", ["x", "t"], ["y"])],
        {"w": normal(12, 16)},
        X,
        [2, 12],
        (12, 16),
        0,
        16,
        1,
    ),
    "conv behind a transpose": (
        [node("Transpose", ["w"], ["t"], perm=[3, 2, 0, 1]), node("Conv", ["x", "t"], ["y"])],
        {"w": normal(3, 3, 4, 5)},
        IMAGE,
        [2, 5, 4, 4],
        (3, 3, 4, 5),
        3,
        36,
        16,
    ),
    "float16 behind a cast": (
        [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("MatMul", ["x", "c"], ["y"])],
        {"w": normal(16, 12, dtype=np.float16)},
        X,
        [2, 12],
        (16, 12),
        1,
        16,
        1,
    ),
    "bfloat16 behind a cast": (
        [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("MatMul", ["x", "c"], ["y"])],
        {"w": _bfloat16("w", normal(16, 12))},
        X,
        [2, 12],
        (16, 12),
        1,
        16,
        1,
    ),
    "double behind a cast": (
        [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("MatMul", ["x", "c"], ["y"])],
        {"w": normal(16, 12, dtype=np.float64)},
        X,
        [2, 12],
        (16, 12),
        1,
        16,
        1,
    ),
    "constant node": (
        [_constant("w", normal(16, 12)), node("MatMul", ["x", "w"], ["y"])],
        {},
        X,
        [2, 12],
        (16, 12),
        1,
        16,
        1,
    ),
}
