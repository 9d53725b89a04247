"""The bundled digits model as a PyTorch module: `benchmarks/digits_model.py:build`, weights and all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from lampq.demo_data import MODEL_PATH

sys.path.append(str(Path(__file__).parents[1] / "examples"))


def build() -> torch.nn.Module:
    """The model of `make demo`; matrices of its file have no names and come in the order that they are used."""
    import train_digits_vit

    module = train_digits_vit.build()
    arrays = {item.name: numpy_helper.to_array(item) for item in onnx.load(MODEL_PATH).graph.initializer}
    nameless = iter(
        [array for name, array in arrays.items() if name not in module.state_dict() and array.ndim == 2]
    )
    matrices = [f"blocks.{block}.{name}.weight" for block in range(len(module.blocks)) for name in _LAYERS]
    arrays |= {name: np.ascontiguousarray(next(nameless).T) for name in matrices}
    module.load_state_dict({name: torch.from_numpy(arrays[name].copy()) for name in module.state_dict()})
    return module


_LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
