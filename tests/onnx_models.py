"""Small real ONNX models for the tests: exports by both of torch's exporters, and graphs made by hand."""

from __future__ import annotations

import functools
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn


class Attention(nn.Module):
    """Self-attention as timm writes it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(samples, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(samples, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """A pre-norm ViT with timm's module names: images (N, 3, 16, 16) to logits (N, 10)."""

    def __init__(self, dim: int = 16, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dim, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 17, dim) * 0.02)
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class EncoderTransformer(nn.Module):
    """A post-norm ViT on `nn.TransformerEncoder`: packed q, k and v, and a module that is never called."""

    def __init__(self, dim: int = 16, depth: int = 2, *, bias: bool = True) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dim, 4, 4)
        layer = nn.TransformerEncoderLayer(dim, 2, 2 * dim, dropout=0.0, batch_first=True, bias=bias)
        self.transformer = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        return self.mlp_head(self.transformer(tokens).mean(dim=1))


class ConvNet(nn.Module):
    """Convolutions of every sort: plain, depthwise, pointwise, transposed, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.fc = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.stem(x)
        y = torch.relu(self.pointwise(skip + self.depthwise(skip)))
        y = nn.functional.max_pool2d(y, 2)
        y = self.up(y) + skip
        return self.fc(y.mean(dim=(2, 3)))


@functools.cache
def module(name: str) -> nn.Module:
    """A model of this file with fixed weights: `vit`, `encoder`, `encoder_plain` (no biases) or `conv`."""
    torch.manual_seed(7)
    built = {
        "vit": VisionTransformer,
        "encoder": EncoderTransformer,
        "encoder_plain": lambda: EncoderTransformer(bias=False),
        "conv": ConvNet,
    }[name]()
    with torch.no_grad():
        # Layers of nn.TransformerEncoder start as copies of each other: give each weights of its own.
        for parameter in built.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for buffer in built.buffers():
            if buffer.dtype.is_floating_point:
                buffer.add_(0.1 * torch.rand_like(buffer))
    return built.eval()


@functools.cache
def exported(name: str, exporter: str, *, batch: int | None = None) -> Path:
    """The file that `dynamo` or `legacy` makes of `module(name)`; its batch is free, or fixed to `batch`."""
    path = Path(_folder().name) / f"{name}_{exporter}_{batch}.onnx"
    x = torch.randn(batch or 2, 3, 16, 16)
    backend = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if exporter == "dynamo":
                free = ({0: torch.export.Dim("batch", min=1, max=512)},) if batch is None else None
                options = {"dynamo": True, "dynamic_shapes": free, "external_data": False, "verbose": False}
            else:
                axes = {"x": {0: "batch"}, "logits": {0: "batch"}} if batch is None else None
                options = {"dynamo": False, "dynamic_axes": axes, "opset_version": 17}
            torch.onnx.export(module(name), (x,), path, input_names=["x"], output_names=["logits"], **options)
    finally:
        torch.backends.mha.set_fastpath_enabled(backend)
    return path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def graph(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, np.ndarray | onnx.TensorProto],
    *,
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Mapping[str, Sequence[int | str | None] | None],
    opset: int = 20,
    ir_version: int = 10,
    functions: Sequence[onnx.FunctionProto] = (),
    input_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model made by hand; every output is float."""
    initializers = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value, name)
        for name, value in weights.items()
    ]
    built = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, input_type, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        initializers,
    )
    domains = {"": opset, "com.microsoft": 1} | {f.domain: 1 for f in functions}
    return helper.make_model(
        built,
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
        functions=list(functions),
    )


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """The path of a model written to a folder."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def normal(*shape: int, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    """Reproducible normal numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def mlp(layers: int = 3, width: int = 16, classes: int = 4) -> onnx.ModelProto:
    """x (N, width) through `layers` products with ReLU between, named `fc0.weight`, `fc1.weight`, ..."""
    nodes, weights, value = [], {}, "x"
    for index in range(layers):
        last = index == layers - 1
        name = f"fc{index}.weight"
        weights[name] = normal(width, classes if last else width, seed=index) / width**0.5
        out = "logits" if last else f"h{index}"
        nodes.append(helper.make_node("MatMul", [value, name], [out], name=f"matmul{index}"))
        if not last:
            value = f"r{index}"
            nodes.append(helper.make_node("Relu", [out], [value], name=f"relu{index}"))
    return graph(nodes, weights, inputs={"x": ["batch", width]}, outputs={"logits": ["batch", classes]})


def if_model() -> onnx.ModelProto:
    """A product whose result goes through one of two branches."""
    node = helper.make_node

    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node("MatMul", ["h", "inner"], [name])], name, [], [out])

    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=branch("t"), else_branch=branch("e")),
    ]
    weights = {"w": normal(16, 16), "inner": normal(16, 12), "zero": np.float32(0).reshape(())}
    return graph(nodes, weights, inputs={"x": [2, 16]}, outputs={"y": [2, 12]})
