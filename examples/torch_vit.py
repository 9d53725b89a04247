"""PyTorch: a small Vision Transformer quantized to a file that is loaded again, and the same plan on its ONNX export.

Needs lampq[torch,onnx] and onnxscript. Writes into the current folder: python examples/torch_vit.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import lampq
from lampq.adapters.torch import load_quantized, read
from lampq.adapters.torch.onnx_export import export_onnx


class TinyViT(nn.Module):
    def __init__(self, width: int = 32, blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 8, 8)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.transformer = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)
        # Blocks begin as copies of each other; trained ones differ.
        for weight in self.transformer.parameters():
            nn.init.normal_(weight, std=0.2)
        self.head = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        return self.head(self.transformer(tokens).mean(dim=1))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = TinyViT().eval()
    images = np.random.default_rng(0).normal(size=(48, 3, 32, 32)).astype(np.float32)

    model = read(module, input_shape=(3, 32, 32))
    profile = lampq.profile(model, images, bits=(2, 3, 4, 8))
    plan = lampq.plan(profile, average_bits=3, mode="fisher")
    lampq.apply(model, plan, "vit.safetensors", force=True)

    loaded = load_quantized("vit.safetensors", TinyViT)
    with torch.no_grad():
        logits = loaded(torch.from_numpy(images)).numpy()
    before = np.asarray(model.run(images))
    print(f"loaded again: {np.mean(logits.argmax(1) == before.argmax(1)):.0%} of classes as before")

    export_onnx(model, Path("vit.onnx"))
    exported = lampq.read("vit.onnx")
    lampq.apply(exported, plan, "vit-3bit.onnx", force=True)
    kl = lampq.evaluate(lampq.read("vit-3bit.onnx"), images, reference=exported).kl
    print(f"the same plan on the ONNX export, layers found by their weights: {kl:.4f} nats")


if __name__ == "__main__":
    main()
