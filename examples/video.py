"""Videos enter as arrays: a small transformer over frames tells which way a square moves, and is quantized as ONNX.

Needs lampq[torch,onnx] and onnxscript. Writes into the current folder: python examples/video.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import lampq
from lampq.adapters.torch import read
from lampq.adapters.torch.onnx_export import export_onnx

FRAMES, SIDE = 5, 16
WAYS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def videos(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright squares moving over noise, float32 (count, FRAMES, 1, SIDE, SIDE), and the way of each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(WAYS), count)
    frames = rng.normal(0, 0.3, (count, FRAMES, 1, SIDE, SIDE)).astype(np.float32)
    for video, label in zip(frames, labels, strict=True):
        middle = SIDE // 2 - 2 + rng.integers(-2, 3, 2)
        for number in range(FRAMES):
            rows, columns = (
                place + step * number + np.arange(4) for place, step in zip(middle, WAYS[label], strict=True)
            )
            video[number, 0, rows[:, None], columns] += 2
    return frames, labels


class VideoTransformer(nn.Module):
    """A frame is a token: attention over time tells the way."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.frame = nn.Linear(SIDE * SIDE, width)
        self.place = nn.Parameter(torch.zeros(1, FRAMES, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.time = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(WAYS))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.head(self.time(self.frame(frames.flatten(2)) + self.place).mean(dim=1))


def trained(steps: int = 120) -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = VideoTransformer()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    frames, labels = (torch.from_numpy(array) for array in videos(32 * steps, seed=0))
    for step in range(steps):
        rows = slice(32 * step, 32 * step + 32)
        loss = nn.functional.cross_entropy(module(frames[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def main() -> None:
    calibration, _ = videos(128, seed=1)
    frames, labels = videos(400, seed=2)
    export_onnx(read(trained(), input_shape=(FRAMES, 1, SIDE, SIDE)), Path("video.onnx"))
    # Arrays go to the input as they are; from the command line: lampq quantize video.onnx --data videos.npz ...
    np.savez("videos.npz", x=calibration)

    model = lampq.read("video.onnx")
    plan = lampq.quantize(
        model, calibration, "video-3bit.onnx", average_bits=3, bits=(2, 3, 4, 8), rounds=0, force=True
    )
    before = lampq.evaluate(model, frames, labels)
    after = lampq.evaluate(lampq.read("video-3bit.onnx"), frames, labels, reference=model)
    print(f"float {before.top1:.1%}, {plan.average_bits:.2f} bits {after.top1:.1%}, {after.kl:.4f} nats")


if __name__ == "__main__":
    main()
