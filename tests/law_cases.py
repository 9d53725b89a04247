"""Models of every format for the laws of models, as cases to try them on."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy_model import NumpyModel
from numpy_model import read as read_numpy
from onnx import TensorProto
from onnx.helper import make_node
from onnx_models import graph, mlp, normal, saved
from tflite_models import Builder, fixture
from torch import nn

from lampq.adapters.onnx import read as read_onnx
from lampq.adapters.tflite import read as read_tflite
from lampq.adapters.torch import load_quantized
from lampq.adapters.torch import read as read_torch
from lampq.core.values.batch import Batch
from lampq.testing.model_laws import Case

WIDTH, HIDDEN, ROWS = 16, 24, 40


@functools.cache
def folder():
    """Lives as long as the tests."""
    return tempfile.TemporaryDirectory()


def place(name):
    return Path(folder().name) / name


def onnx_file(nodes, weights, inputs, outputs, name, types=None):
    model = graph(nodes, weights, inputs=inputs, outputs=outputs)
    for value in model.graph.input:
        value.type.tensor_type.elem_type = (types or {}).get(value.name, TensorProto.FLOAT)
    return saved(model, place(""), f"{name}.onnx")


def chain(batch, seed, name):
    """Two products over tokens."""
    nodes = [
        make_node("MatMul", ["x", "w"], ["h"]),
        make_node("Relu", ["h"], ["r"]),
        make_node("MatMul", ["r", "v"], ["z"]),
        make_node("ReduceMean", ["z", "axes"], ["y"], keepdims=0),
    ]
    weights = {
        "w": normal(WIDTH, HIDDEN, seed=seed),
        "v": normal(HIDDEN, 8, seed=seed),
        "axes": np.array([1]),
    }
    return onnx_file(nodes, weights, {"x": [batch, 3, WIDTH]}, {"y": [batch, 8]}, name)


def passed_on(inputs, batch, types=None):
    """A model of the same inputs without layers: what comes in goes out."""
    nodes = [make_node("Cast", [name], [f"{name}_out"], to=TensorProto.FLOAT) for name in inputs]
    outputs = {f"{name}_out": shape for name, shape in inputs.items()}
    return onnx_file(nodes, {}, inputs, outputs, f"empty{len(inputs)}{batch}", types)


def onnx_classifier():
    path, other = (saved(mlp(width=WIDTH, classes=c), place(""), f"mlp{c}.onnx") for c in (6, 7))
    empty = passed_on({"x": ["n", WIDTH]}, "n")
    return onnx_case(path, other, empty, normal(5, WIDTH))


def onnx_fixed_batch():
    path, other = chain(4, 1, "fixed"), chain(4, 2, "fixed other")
    return onnx_case(path, other, passed_on({"x": [4, 3, WIDTH]}, 4), normal(6, 3, WIDTH))


def text_model(seed, name):
    """Token ids and a mask to logits behind a softmax and a vector for every text."""
    nodes = [
        make_node("Gather", ["table", "ids"], ["e"]),
        make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        make_node("Unsqueeze", ["m", "last"], ["wide"]),
        make_node("Mul", ["e", "wide"], ["masked"]),
        make_node("ReduceMean", ["masked", "first"], ["mixed"], keepdims=0),
        make_node("MatMul", ["mixed", "w"], ["h"]),
        make_node("Tanh", ["h"], ["t"]),
        make_node("MatMul", ["t", "v"], ["z"]),
        make_node("Softmax", ["z"], ["classes"]),
        make_node("MatMul", ["e", "u"], ["vectors"]),
    ]
    weights = {
        "table": normal(300, WIDTH, seed=seed),
        "w": normal(WIDTH, HIDDEN, seed=seed) / 4,
        "v": normal(HIDDEN, 6, seed=seed) / 4,
        "u": normal(WIDTH, 8, seed=seed) / 4,
        "last": np.array([-1]),
        "first": np.array([1]),
    }
    shape = ["n", "length"]
    outputs = {"classes": ["n", 6], "vectors": ["n", "length", 8]}
    return onnx_file(nodes, weights, {"ids": shape, "mask": shape}, outputs, name, INTEGERS)


INTEGERS = {"ids": TensorProto.INT64, "mask": TensorProto.INT64}


def texts(samples, length):
    mask = np.ones((samples, length), np.int64)
    mask[0, length // 2 :] = 0
    ids = np.random.default_rng(length).integers(0, 300, (samples, length))
    return {"ids": ids, "mask": mask}


def onnx_two_inputs_two_outputs():
    path, other = text_model(1, "texts"), text_model(2, "texts other")
    empty = passed_on({name: ["n", "length"] for name in ("ids", "mask")}, "n", INTEGERS)
    return onnx_case(path, other, empty, Batch([texts(3, 6), texts(2, 9)]))


def onnx_case(path, other, empty, batch):
    return Case(
        read=lambda: read_onnx(path),
        batch=batch,
        other=lambda: read_onnx(other),
        empty=lambda: read_onnx(empty),
        suffix=".onnx",
        reopen=read_onnx,
        gradients=True,
    )


def tflite_file(seed, batch, name, *, layers=True):
    """Two linear layers, and with `batch` 1 a third beside the second as another output."""
    b = Builder()
    arrays = [
        normal(HIDDEN, WIDTH, seed=seed) / 4,
        normal(8, HIDDEN, seed=seed),
        normal(10, HIDDEN, seed=seed),
    ]
    x = b.tensor("x", (batch, WIDTH))
    if not layers:
        y = b.tensor("y", (batch, WIDTH))
        b.op("TANH", [x], [y])
        return b.write(place(f"{name}.tflite"), [x], [y])
    h, t = b.tensor("h", (batch, HIDDEN)), b.tensor("t", (batch, HIDDEN))
    first, second, third = (b.tensor(f"w{i}", array.shape, array) for i, array in enumerate(arrays))
    b.op("FULLY_CONNECTED", [x, first, -1], [h], "FullyConnectedOptions", version=6)
    b.op("TANH", [h], [t])
    z, y, v = b.tensor("z", (batch, 8)), b.tensor("classes", (batch, 8)), b.tensor("vector", (batch, 10))
    b.op("FULLY_CONNECTED", [t, second, -1], [z], "FullyConnectedOptions", version=6)
    b.op("SOFTMAX", [z], [y], "SoftmaxOptions", beta=1.0)
    b.op("FULLY_CONNECTED", [t, third, -1], [v], "FullyConnectedOptions", version=6)
    return b.write(place(f"{name}.tflite"), [x], [y, v])


def tflite_two_outputs():
    path, other = tflite_file(1, 4, "two"), tflite_file(2, 4, "two other")
    return tflite_case(path, other, tflite_file(3, 4, "two empty", layers=False), normal(6, WIDTH))


def tflite_fixture():
    shape = read_tflite(fixture("conv_any_batch")).input_spec.shape[1:]
    b = Builder()
    x, y = b.tensor("x", (1, *shape)), b.tensor("y", (1, *shape))
    b.op("TANH", [x], [y])
    empty = b.write(place("fixture empty.tflite"), [x], [y])
    return tflite_case(fixture("conv_any_batch"), fixture("mobile_vit"), empty, normal(5, *shape))


def tflite_case(path, other, empty, batch):
    return Case(
        read=lambda: read_tflite(path),
        batch=batch,
        other=lambda: read_tflite(other),
        empty=lambda: read_tflite(empty),
        suffix=".tflite",
        reopen=read_tflite,
        gradients=True,
        # Kernels of int8 weights round activations to 8 bits while they run.
        written_tolerance=0.03,
    )


class Chain(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.norm = nn.Conv2d(3, WIDTH, 4, 4), nn.LayerNorm(WIDTH)
        self.mix, self.head = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, 6)

    def forward(self, x):
        tokens = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        return self.head(torch.tanh(self.mix(tokens)).mean(1))


class Texts(nn.Module):
    """The same as `text_model`."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.mix = nn.Embedding(300, WIDTH), nn.Linear(WIDTH, HIDDEN)
        self.head, self.project = nn.Linear(HIDDEN, 6), nn.Linear(WIDTH, 8)

    def forward(self, ids, mask):
        tokens = self.table(ids)
        mixed = (tokens * mask[..., None].to(tokens.dtype)).mean(1)
        classes = torch.softmax(self.head(torch.tanh(self.mix(mixed))), -1)
        return {"classes": classes, "vectors": self.project(tokens)}


class Small(nn.Module):
    """Its only matrix is too small to be a layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.randn(2, 2))

    def forward(self, ids, mask):
        return (ids * mask).float()[:, :2] @ self.scale


def torch_module():
    return torch_case(Chain, nn.Conv2d(3, 2, 1), normal(5, 3, 8, 8))


def torch_two_inputs_two_outputs():
    return torch_case(Texts, Small(), Batch([texts(3, 6), texts(2, 9)]))


def torch_case(build, empty, batch):
    def read(module):
        return read_torch(module.eval()).with_examples(batch)

    return Case(
        read=lambda: read(build(1)),
        batch=batch,
        other=lambda: read(build(2)),
        empty=lambda: read(empty),
        suffix=".safetensors",
        reopen=lambda path: read(load_quantized(path, build(1))),
        gradients=True,
    )


def npz_file(seed, name, **shapes):
    rng = np.random.default_rng(seed)
    weights = {
        key: rng.normal(size=shape).astype(np.float32) / shape[1] ** 0.5 for key, shape in shapes.items()
    }
    np.savez(place(f"{name}.npz"), **weights)
    return lambda: npz_adapter().read(place(f"{name}.npz"))


@functools.cache
def npz_adapter():
    """The example."""
    path = Path(__file__).parent.parent / "examples/npz_adapter.py"
    spec = importlib.util.spec_from_file_location("npz_adapter", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def npz_example():
    shapes = {"first": (HIDDEN, WIDTH), "small": (2, HIDDEN), "second": (ROWS, 2), "head": (10, ROWS)}
    return Case(
        read=npz_file(1, "network", **shapes),
        batch=normal(5, WIDTH),
        other=npz_file(2, "network other", **shapes),
        empty=npz_file(3, "network empty", head=(3, WIDTH)),
        suffix=".npz",
        reopen=npz_adapter().read,
    )


def numpy_model():
    weights = NumpyModel.random(width=WIDTH, classes=6)._weights
    return Case(
        read=lambda: NumpyModel(weights),
        batch=normal(5, WIDTH),
        other=lambda: NumpyModel.random(1, width=WIDTH, classes=6),
        empty=lambda: NumpyModel(weights, fixed=weights),
        suffix=".numpy",
        reopen=read_numpy,
    )


CASES = {
    case.__name__.replace("_", " "): functools.cache(case)
    for case in (
        onnx_classifier,
        onnx_two_inputs_two_outputs,
        onnx_fixed_batch,
        tflite_fixture,
        tflite_two_outputs,
        torch_module,
        torch_two_inputs_two_outputs,
        npz_example,
        numpy_model,
    )
}
"""What it is -> the case, made when it is first needed."""
