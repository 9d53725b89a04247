"""Point clouds enter as arrays: a PointNet learns shapes that are generated here, and is quantized by its points.

Needs lampq[torch]. Writes into the current folder: python examples/point_cloud.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import lampq
from lampq.adapters.torch import read
from lampq.adapters.torch.model import TorchModel

SHAPES = ("sphere", "cube", "cylinder", "plane")
POINTS = 128


def clouds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on surfaces, float32 (count, POINTS, 3), turned about the vertical and a little off; and their shapes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(SHAPES), count)
    points = np.stack([_surface(rng, SHAPES[label]) for label in labels])
    angle = rng.uniform(0, 2 * np.pi, count)
    turn = np.zeros((count, 3, 3))
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = (
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    )
    turn[:, 2, 2] = 1
    noisy = points @ turn + rng.normal(0, 0.05, points.shape)
    return noisy.astype(np.float32), labels


def _surface(rng: np.random.Generator, shape: str) -> np.ndarray:
    free = rng.uniform(-1, 1, (POINTS, 3))
    if shape == "sphere":
        return free / np.linalg.norm(free, axis=1, keepdims=True)
    if shape == "cube":
        side = rng.integers(0, 3, POINTS)
        free[np.arange(POINTS), side] = rng.choice([-1, 1], POINTS)
    elif shape == "cylinder":
        free[:, :2] /= np.linalg.norm(free[:, :2], axis=1, keepdims=True)
    else:
        free[:, 2] = 0
    return free


class PointNet(nn.Module):
    """Every point by itself, then the largest of each feature (Qi et al. 2017, without its alignment networks)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.point = nn.Sequential(
            nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2 * width), nn.LayerNorm(2 * width)
        )
        self.deep = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, 4 * width))
        self.head = nn.Sequential(nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, len(SHAPES)))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.head(self.deep(self.point(points)).amax(dim=1))


def trained(steps: int = 150) -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = PointNet()
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    points, labels = (torch.from_numpy(array) for array in clouds(32 * steps, seed=0))
    for step in range(steps):
        rows = slice(32 * step, 32 * step + 32)
        loss = nn.functional.cross_entropy(module(points[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def quantized(model: TorchModel, inputs: np.ndarray, path: str) -> lampq.Plan:
    profile = lampq.profile(model, inputs, bits=(2, 3, 4, 8), rounding="inputs")
    plan = lampq.plan(profile, average_bits=3)
    lampq.apply(model, plan, path, batch=inputs, force=True)
    return plan


def main() -> None:
    model = read(trained(), input_shape=(POINTS, 3))
    points, labels = clouds(400, seed=2)
    # Without any clouds, what the normalization and the classes tell is all there is, and noise the beginning.
    made = lampq.synthetic(model, 128)
    print(made.notes[0])
    for name, inputs in (("clouds", clouds(128, seed=1)[0]), ("synthetic", np.asarray(made.inputs()))):
        plan = quantized(model, inputs, f"pointnet-{name}.safetensors")
        found = lampq.evaluate(model, points, labels, plan=plan, calibration=inputs)
        print(f"{plan.average_bits:.2f} bits by {name}: {found.top1:.1%}, {found.kl:.4f} nats")
    print(f"float: {lampq.evaluate(model, points, labels).top1:.1%}")


if __name__ == "__main__":
    main()
