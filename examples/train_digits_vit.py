"""Train the small Vision Transformer that `lampq demo` runs on, and write it with its data.

    python examples/train_digits_vit.py --out demo

Needs torch, onnx, onnxscript and scikit-learn, which brings the images: 1,797 handwritten digits of 8x8
pixels (Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning
Repository, CC BY 4.0). They are split once into 597 for training, 200 for calibration and 1,000 for
validation; training sees the first part alone and keeps the weights of its last step. It takes about a minute
on one core, and gives the same files on every run of the same machine.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from torch import nn

from lampq.demo_data import PREPROCESS

SIDE, PATCH, CLASSES = 8, 2, 10
CALIBRATION, VALIDATION = 200, 1000
EPOCHS, BATCH, PEAK_RATE = 120, 25, 1e-3


class PatchEmbed(nn.Module):
    """Images (N, 1, 8, 8) to tokens (N, 16, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cut into patches and project each."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix the tokens (N, tokens, dim)."""
        tokens, dim = x.shape[1:]
        q, k, v = self.qkv(x).reshape(-1, tokens, 3 * self.heads, self.width).transpose(1, 2).chunk(3, dim=1)
        weights = (q @ k.transpose(-2, -1) * self.width**-0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(-1, tokens, dim))


class Mlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform each token."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both parts around the residual stream."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DigitsViT(nn.Module):
    """Images (N, 1, 8, 8), normalized, to logits (N, 10)."""

    def __init__(self, dim: int = 48, depth: int = 6, heads: int = 4, hidden: int = 192) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (SIDE // PATCH) ** 2 + 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify by the class token."""
        x = self.patch_embed(x)
        # Not len(x): the exporter would take it for a constant and fix the number of samples.
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def build() -> nn.Module:
    """The architecture with random weights."""
    return DigitsViT().eval()


def split_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images, uint8, shape (N, 8, 8), and labels, uint8, of `train`, `calibration` and `validation`."""
    digits = load_digits()
    # The set has 17 levels of grey, 0 to 16.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    # This generator's stream is frozen, so the split is the same with every version of NumPy.
    order = np.random.RandomState(0).permutation(len(labels))
    train = len(order) - CALIBRATION - VALIDATION
    parts = np.split(order, [train, train + CALIBRATION])
    return {
        name: (images[part], labels[part])
        for name, part in zip(("train", "calibration", "validation"), parts, strict=True)
    }


def normalize(images: np.ndarray) -> torch.Tensor:
    """The model's input, shape (N, 1, 8, 8)."""
    pixels = torch.from_numpy(images).float()[:, None] * PREPROCESS.scale
    return (pixels - PREPROCESS.mean[0]) / PREPROCESS.std[0]


def distort(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image turned by up to 8 degrees, scaled by up to 8 % and moved by up to half a pixel."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    angle, scale, shift = draw(len(x)) * math.radians(8), 1 + 0.08 * draw(len(x)), draw(len(x), 2) / SIDE
    cos, sin = scale * angle.cos(), scale * angle.sin()
    matrix = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).reshape(-1, 2, 3)
    grid = nn.functional.affine_grid(matrix, list(x.shape), align_corners=False)
    # Sampling fills with zeros what comes in from outside, so the background has to be zero meanwhile.
    background = x.amin()
    return nn.functional.grid_sample(x - background, grid, align_corners=False) + background


def train(images: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int = 0) -> nn.Module:
    """Train with Adam under a one-cycle rate and without weight decay; deterministic on one machine."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(seed + 1)
    model = build().train()
    x, y = normalize(images), torch.from_numpy(labels).long()
    batches = len(x) // BATCH
    optimizer = torch.optim.Adam(model.parameters(), lr=PEAK_RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=epochs * batches, pct_start=0.15
    )
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=generator)[: batches * BATCH].split(BATCH):
            loss = nn.functional.cross_entropy(model(distort(x[rows], generator)), y[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            total += loss.item()
        if epoch % 10 == 9 or epoch == epochs - 1:
            print(f"epoch {epoch + 1:3d}  training loss {total / batches:.4f}")
    return model.eval()


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy in 0..1."""
    with torch.no_grad():
        return float((model(normalize(images)).argmax(dim=1).numpy() == labels).mean())


def export(model: nn.Module, path: Path) -> None:
    """Write ONNX with a free number of samples and without traces of the machine it was made on."""
    example = torch.zeros(2, 1, SIDE, SIDE)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        input_names=["x"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=18,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    proto = program.model_proto
    # The version that belongs to this opset; newer ones keep older runtimes from reading the file.
    proto.ir_version = 8
    del proto.metadata_props[:], proto.graph.metadata_props[:], proto.graph.value_info[:]
    proto.producer_name, proto.producer_version = "lampq examples/train_digits_vit.py", ""
    for node in proto.graph.node:
        # The module path of every node is kept: layers are named by it.
        kept = [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    if not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise RuntimeError("the export has a fixed number of samples")
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def main(argv: list[str] | None = None) -> int:
    """Train, report and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and its data")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    parts = split_digits()
    model = train(*parts["train"], epochs=arguments.epochs, seed=arguments.seed)
    for name, part in parts.items():
        print(f"top-1 on {len(part[1])} images for {name}: {100 * accuracy(model, *part):.1f} %")
    arguments.out.mkdir(parents=True, exist_ok=True)
    export(model, arguments.out / "digits_vit.onnx")
    names = np.array([str(digit) for digit in range(CLASSES)])
    for name in ("calibration", "validation"):
        images, labels = parts[name]
        np.savez_compressed(arguments.out / f"digits_{name}.npz", x=images, y=labels, classes=names)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
