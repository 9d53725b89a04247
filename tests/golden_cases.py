"""Small models whose plans and profiles lie in `golden/`, and what those were asked to be.

Everything here is made of NumPy's generator alone, so that the models are the same to the bit everywhere. It uses
nothing of lampq but what the version of the golden files had too: `python golden_cases.py` with that version writes
them anew.
"""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import lampq
from lampq.adapters.tflite.graph import Graph
from lampq.adapters.torch import load_quantized
from lampq.adapters.torch import read as read_torch

GOLDEN = Path(__file__).parent / "golden"
WIDTH, HIDDEN, CLASSES = 16, 24, 6


def numbers(*shape, seed):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def onnx_model(folder):
    """Two products with a bias and a ReLU between."""
    weights = {
        "up.weight": numbers(WIDTH, HIDDEN, seed=1) / 4,
        "up.bias": numbers(HIDDEN, seed=2) / 4,
        "head.weight": numbers(HIDDEN, CLASSES, seed=3) / 4,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "up.weight"], ["h"], name="up"),
        helper.make_node("Add", ["h", "up.bias"], ["b"], name="bias"),
        helper.make_node("Relu", ["b"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "head.weight"], ["logits"], name="head"),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])]
        for name, size in (("x", WIDTH), ("logits", CLASSES))
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "golden", *ends, stored)
    path = folder / "model.onnx"
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    path.write_bytes(model.SerializeToString())
    return lampq.read(path)


def torch_model(folder):
    """A convolution and two linear layers."""
    module = nn.Sequential(
        nn.Conv2d(3, HIDDEN, 2, 2),
        nn.ReLU(),
        nn.Flatten(2),
        nn.Linear(WIDTH, WIDTH),
        nn.Flatten(1),
        nn.Linear(HIDDEN * WIDTH, CLASSES),
    )
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(
                torch.from_numpy(numbers(*parameter.shape, seed=seed) / parameter[0].numel() ** 0.5)
            )
    return read_torch(module.eval(), input_shape=(3, 8, 8))


def tflite_model(folder):
    """The tests' own file."""
    return lampq.read(Path(__file__).parent / "fixtures/conv_any_batch.tflite")


CASES = {
    "onnx-bitplane": (onnx_model, ".onnx", {"bits": (2, 3, 4, 8)}, 3.0),
    "onnx-int8": (onnx_model, ".onnx", {"bits": (3, 4, 8), "container": "int8"}, 4.0),
    "onnx-int8-inputs": (onnx_model, ".onnx", {"bits": (4, 8), "act_bits": 8, "container": "int8"}, 5.0),
    "onnx-rounded": (onnx_model, ".onnx", {"bits": (2, 3, 4), "rounding": "inputs"}, 3.0),
    "torch-bitplane": (torch_model, ".safetensors", {"bits": (2, 3, 4)}, 3.0),
    "torch-int8": (torch_model, ".safetensors", {"bits": (4, 8), "container": "int8"}, 6.0),
    "torch-pairs": (torch_model, ".safetensors", {"bits": (2, 4), "act_bits": (4, 8)}, 3.0),
    "torch-blocks": (torch_model, ".safetensors", {"bits": (2, 4), "block": 16}, 3.0),
    "tflite-int8": (tflite_model, ".tflite", {"bits": (4, 8), "container": "int8"}, 6.0),
}
"""Name -> how to get the model, ending of what is written, what was measured, and the average of bits of the plan."""


def inputs(model):
    shape = (WIDTH,) if model.format == "onnx" else model.input_spec.shape[1:]
    return numbers(8, *shape, seed=9)


def payload(path):
    """Codes and scales of a written file by name: what a plan decides, whatever a writer calls the rest."""
    if path.suffix == ".onnx":
        stored = onnx.load(path).graph.initializer
        return {value.name: numpy_helper.to_array(value) for value in stored if "." in value.name}
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    graph = Graph(path.read_bytes()).subgraphs[0]
    arrays = {}
    for index in range(len(graph.tensors)):
        if graph.constant(index) is not None:
            arrays[f"{index}"] = graph.constant(index)
            quantization = graph.tensors[index].quantization
            arrays[f"{index}.scale"] = np.float32(() if quantization is None else quantization.scale)
    return arrays


def digest(path):
    total = hashlib.sha256()
    for name, array in sorted(payload(path).items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()


def damage(model, path, batch):
    """How far the outputs of a written file are from those of its model, relative."""
    right = np.asarray(model.run(batch))
    if path.suffix == ".safetensors":
        module = load_quantized(path, copy.deepcopy(model.module))
        written = read_torch(module, input_shape=(3, 8, 8)).run(batch)
    else:
        written = lampq.read(path).run(batch)
    return float(np.linalg.norm(np.asarray(written) - right) / np.linalg.norm(right))


def write(folder):
    written = {}
    for name, (build, suffix, measured, average_bits) in CASES.items():
        model = build(folder)
        batch = inputs(model)
        profile = lampq.profile(model, batch, fisher_draws=1, **measured)
        profile.write(GOLDEN / f"{name}.profile.json", force=True)
        plan = lampq.plan(profile, average_bits=average_bits)
        plan.write(GOLDEN / f"{name}.plan.json", force=True)
        lampq.apply(model, plan, folder / f"out{suffix}", batch=batch, force=True)
        out = folder / f"out{suffix}"
        written[name] = {"payload": digest(out), "damage": damage(model, out, batch)}
    (GOLDEN / "written.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        write(Path(place))
