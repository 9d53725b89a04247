"""The models to compare on, each one a module of plain nn.Linear and nn.Conv2d that every tool can see into.

nn.MultiheadAttention hides two of its weights from tools that look for modules: q, k and v are one packed
parameter, and the output projection's module is never called. So attention is written out here, with the same
parameters in an `nn.Linear` each, and the result checked against the original.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import torch
from torch import nn

from lampq import adapters, demo_data
from lampq.adapters.data import Preprocess, read_data
from lampq.adapters.torch import read
from lampq.core.quantizing.quantizer import as_rows

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A model and its data.

    Attributes:
        name: Heading in the result.
        module: The float model, in eval mode.
        difference: Largest difference of a calibration logit to the model as published.
        calibration: Inputs (S, ...) and labels (S,) for the search.
        validation: Inputs and labels for the figures.
    """

    name: str
    module: nn.Module
    difference: float
    calibration: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]


class Attention(nn.Module):
    """Multi-head self-attention written out, with the parameters of an nn.MultiheadAttention."""

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        dim = packed.embed_dim
        self.heads = packed.num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.qkv.load_state_dict({"weight": packed.in_proj_weight, "bias": packed.in_proj_bias})
        self.proj.load_state_dict(packed.out_proj.state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix the tokens (N, tokens, dim)."""
        samples, tokens, dim = x.shape
        shape = (samples, tokens, 3, self.heads, dim // self.heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (dim // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """A post-norm nn.TransformerEncoderLayer in eval mode, written out."""

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.attn = Attention(layer.self_attn)
        self.fc1, self.fc2, self.act = layer.linear1, layer.linear2, layer.activation
        self.norm1, self.norm2 = layer.norm1, layer.norm2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both parts, each normalized after its residual."""
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.fc2(self.act(self.fc1(x))))


def cifar(model: str, weights: str, calib: str, val: str) -> Subject:
    """A ViT with `build()` in a Python file and a post-norm `transformer` of nn.TransformerEncoderLayer."""
    packed = _load(Path(model)).build()
    packed.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    sets = []
    specs = read(packed, input_shape=(3, 32, 32)).input_specs
    for folder in (calib, val):
        inputs, labels = read_data(folder, input_specs=specs, preprocess=Preprocess.preset("cifar10")).load()
        sets.append((np.asarray(inputs), labels))
    published = _logits(packed, sets[0][0])
    packed.transformer = nn.Sequential(*(Block(layer) for layer in packed.transformer.layers))
    return Subject(
        name="CIFAR-10 ViT",
        module=packed.eval(),
        difference=float(np.abs(_logits(packed, sets[0][0]) - published).max()),
        calibration=sets[0],
        validation=sets[1],
    )


def digits() -> Subject:
    """The bundled demo model, rebuilt as a module from the weights in its ONNX file."""
    stored = adapters.read(demo_data.MODEL_PATH)
    module = _load(_EXAMPLES / "train_digits_vit.py").build()
    constants = onnx.load(demo_data.MODEL_PATH).graph.initializer
    state = {
        constant.name: torch.from_numpy(onnx.numpy_helper.to_array(constant).copy()) for constant in constants
    }
    for layer in stored.layers():
        # The file has most weights as (in, out), under other names.
        rows = as_rows(stored.weight(layer.name), layer.channel_axis)
        name = f"{layer.name}.weight"
        state[name] = torch.from_numpy(rows).reshape(module.state_dict()[name].shape)
    module.load_state_dict({name: state[name] for name in module.state_dict()})
    inputs, labels = read_data(
        demo_data.CALIBRATION_PATH, input_specs=stored.input_specs, preprocess=demo_data.PREPROCESS
    ).load()
    inputs = np.asarray(inputs)
    return Subject(
        name="ViT of the demo (digits)",
        module=module,
        difference=float(np.abs(_logits(module, inputs) - np.asarray(stored.run(inputs))).max()),
        calibration=(inputs, labels),
        validation=demo_data.validation(),
    )


def _logits(module: nn.Module, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([module(part) for part in torch.from_numpy(inputs).split(65)]).numpy()


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    # The exporters look a model's module up by its name.
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
