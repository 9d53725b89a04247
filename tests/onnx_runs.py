"""ONNX models for tests to run, their weights changed in memory and on disk, and what they should give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import normal, saved

from lampq.adapters import onnx as adapter
from lampq.adapters.onnx import inputs

EXPORTS = [
    ("vit", "dynamo"),
    ("vit", "legacy"),
    ("encoder", "dynamo"),
    ("encoder", "legacy"),
    ("conv", "dynamo"),
]


def read(path: Path, **options) -> adapter.OnnxModel:
    """A model that runs on one thread: the tests' models are too small for more."""
    return adapter.read(path, threads=1, **options)


def run(model, x) -> np.ndarray:
    """The only judged output of a model."""
    return np.asarray(model.run(x))


def noise(model) -> np.ndarray:
    """Made-up samples for a model's only input."""
    opened = model.variant.opened
    (array,) = next(inputs.noise(opened.flow, opened.all_specs, opened.constants)).values()
    return array


def images(count: int, seed: int = 0) -> np.ndarray:
    return normal(count, 3, 16, 16, seed=seed)


def rewritten(path: Path, folder: Path, weights: dict[str, np.ndarray]) -> Path:
    """A copy of a file with other numbers in some initializers."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            new = weights[tensor.name].astype(numpy_helper.to_array(tensor).dtype)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    return saved(model, folder, "rewritten.onnx")


def reference(path: Path, x: np.ndarray) -> np.ndarray:
    """Logits by the reference implementation of the standard."""
    return ReferenceEvaluator(onnx.load(path)).run(["logits"], {"x": x})[0]


def changed(model, scale: float = 0.3, seed: int = 1) -> dict[str, np.ndarray]:
    """Every weight of a model, disturbed."""
    found = {}
    for layer in model.layers():
        weight = model.weight(layer.name)
        found[layer.name] = weight + scale * weight.std() * normal(*weight.shape, seed=seed)
    return found
