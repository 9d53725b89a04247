"""Train a small detector and a small segmenter with one Vision Transformer between them, and write both with data.

    python examples/train_shapes_detector.py --out shapes

Needs torch, onnx, onnxscript and Pillow. The images are drawn: up to four shapes of five classes on textured
backgrounds, 64x64 pixels. The detector is of DETR's form, `logits` (the last class is no object) and `pred_boxes`
(centre, width and height as parts of the image), with a token of the backbone for each query; the segmenter gives
`logits` of each pixel, class 0 being background. Everything is seeded; training takes some minutes on two cores.

Written are detector.onnx, segmenter.onnx, the folders calib and val of images, val.json (COCO annotations of val) and
masks (classes of the pixels of val).
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from train_digits_vit import Block

NAMES = ("ellipse", "rectangle", "triangle", "ring", "cross")
SIDE, PATCH, OBJECTS = 64, 8, 4
GRID = SIDE // PATCH
TRAIN, CALIBRATION, VALIDATION = 8192, 256, 512
BATCH, PEAK_RATE, NOTHING_WEIGHT = 32, 1.5e-3, 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenes:
    """Drawn images. N images with places for four objects each.

    Attributes:
        images: uint8, shape (N, 3, 64, 64).
        classes: Class of each object, -1 where there is none, shape (N, 4).
        boxes: Centre, width and height as parts of the image, float32, shape (N, 4, 4).
        masks: Class of each pixel plus 1, 0 for background, uint8, shape (N, 64, 64).
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


def draw(count: int, seed: int) -> Scenes:
    """Scenes with an object in some quarters of each image."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32) + 0.5
    images = _textures(rng, count, rows, columns, contrast=0.16)
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    classes = np.where(rng.random((count, OBJECTS)) < 0.6, rng.integers(0, len(NAMES), (count, OBJECTS)), -1)
    extents = rng.uniform(5, 13, (count, OBJECTS, 2))
    quarter = np.array([[x, y] for y in (16, 48) for x in (16, 48)])
    centres = quarter + rng.uniform(-1, 1, extents.shape) * (15.5 - extents)
    for slot in range(OBJECTS):
        x, y = centres[:, slot].T[:, :, None, None]
        width, height = extents[:, slot].T[:, :, None, None]
        inside = _inside(classes[:, slot], (columns - x) / width, (rows - y) / height)
        paint = _textures(rng, count, rows, columns, contrast=0.08)
        images = np.where(inside[:, None], paint, images)
        masks = np.where(inside, classes[:, slot, None, None] + 1, masks)
    images += 0.04 * rng.standard_normal(images.shape, dtype=np.float32)
    boxes = np.concatenate([centres, 2 * extents], axis=-1) / SIDE
    return Scenes(
        images=(images.clip(0, 1) * 255).astype(np.uint8),
        classes=classes,
        boxes=boxes.astype(np.float32),
        masks=masks.astype(np.uint8),
    )


def _textures(
    rng: np.random.Generator, count: int, rows: np.ndarray, columns: np.ndarray, *, contrast: float
) -> np.ndarray:
    """Plain colours with waves in them, shape (count, 3, 64, 64)."""
    waves = np.zeros((count, 1, SIDE, SIDE), np.float32)
    for _ in range(3):
        angle, length, phase = rng.uniform(0, [[math.pi], [14.0], [6.28]], (3, count))[..., None, None]
        across = columns * np.cos(angle) + rows * np.sin(angle)
        waves[:, 0] += np.sin(6.28 * across / (length + 4) + phase)
    colours, tints = rng.uniform(0.1, 0.9, (2, count, 3, 1, 1))
    return (colours + contrast * tints * waves).astype(np.float32)


def _inside(classes: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which pixels belong to an object whose box is -1 to 1 in both directions."""
    square = (np.abs(u) < 1) & (np.abs(v) < 1)
    radius = u * u + v * v
    shapes = (
        radius < 1,
        square,
        square & (2 * np.abs(u) < v + 1),
        (radius < 1) & (radius > 0.3),
        square & ((np.abs(u) < 0.35) | (np.abs(v) < 0.35)),
    )
    empty = np.zeros_like(square)
    return np.choose(classes[:, None, None] + 1, (empty, *shapes))


class Backbone(nn.Module):
    """Images (N, 3, 64, 64), pixels from 0 to 1, to tokens (N, 64, dim)."""

    def __init__(self, dim: int = 96, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=PATCH, stride=PATCH)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, GRID * GRID, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, 4 * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One token for each patch."""
        x = self.patch_embed(2 * x - 1).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Detector(nn.Module):
    """The backbone with a class and a box for each token."""

    def __init__(self, backbone: Backbone, dim: int = 96) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_head = nn.Linear(dim, len(NAMES) + 1)
        self.box_hidden, self.box_head = nn.Linear(dim, dim), nn.Linear(dim, 4)
        centres = (torch.arange(GRID) + 0.5) / GRID
        grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)
        self.register_buffer("centres", grid.reshape(1, -1, 2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, 64, 6) and boxes (N, 64, 4)."""
        return self.read(self.backbone(x))

    def read(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same from the tokens of the backbone."""
        offsets, sizes = self.box_head(nn.functional.gelu(self.box_hidden(tokens))).split(2, dim=-1)
        return self.class_head(tokens), torch.cat(
            [self.centres + offsets.tanh() / GRID, sizes.sigmoid()], dim=-1
        )


class Segmenter(nn.Module):
    """The backbone with the classes of all pixels of a patch for its token."""

    def __init__(self, backbone: Backbone, dim: int = 96) -> None:
        super().__init__()
        self.backbone = backbone
        self.mask_head = nn.Linear(dim, (len(NAMES) + 1) * PATCH * PATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, 6, 64, 64)."""
        return self.read(self.backbone(x))

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """The same from the tokens of the backbone."""
        pixels = self.mask_head(tokens).transpose(1, 2).unflatten(2, (GRID, GRID))
        return nn.functional.pixel_shuffle(pixels, PATCH)


def targets(scenes: Scenes) -> tuple[torch.Tensor, torch.Tensor]:
    """Class (N, 64) and box (N, 64, 4) that each token is to give: those of the object whose centre it holds."""
    count = len(scenes.classes)
    classes = torch.full((count, GRID * GRID), len(NAMES))
    boxes = torch.zeros(count, GRID * GRID, 4)
    image, slot = np.nonzero(scenes.classes >= 0)
    cells = (scenes.boxes[image, slot, :2] * GRID).astype(int)
    token = cells[:, 1] * GRID + cells[:, 0]
    classes[image, token] = torch.from_numpy(scenes.classes[image, slot])
    boxes[image, token] = torch.from_numpy(scenes.boxes[image, slot])
    return classes, boxes


def train(epochs: int) -> tuple[Detector, Segmenter]:
    """Both models, their backbone trained by the losses of both."""
    torch.manual_seed(0)
    scenes = [draw(1024, seed=10 + part) for part in range(TRAIN // 1024)]
    images = torch.from_numpy(np.concatenate([part.images for part in scenes]))
    masks = torch.from_numpy(np.concatenate([part.masks for part in scenes])).long()
    classes, boxes = map(torch.cat, zip(*map(targets, scenes), strict=True))
    backbone = Backbone()
    detector, segmenter = Detector(backbone), Segmenter(backbone)
    parameters = {id(p): p for model in (detector, segmenter) for p in model.parameters()}
    optimizer = torch.optim.AdamW(parameters.values(), weight_decay=0.02)
    steps = epochs * TRAIN // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    weights = torch.ones(len(NAMES) + 1)
    weights[-1] = NOTHING_WEIGHT
    for step in range(steps):
        if step % (TRAIN // BATCH) == 0:
            order = torch.randperm(TRAIN)
        chosen = order[(step * BATCH) % TRAIN :][:BATCH]
        tokens = backbone(images[chosen].float() / 255)
        logits, predicted = detector.read(tokens)
        wanted = classes[chosen]
        objects = wanted < len(NAMES)
        loss = nn.functional.cross_entropy(logits.transpose(1, 2), wanted, weight=weights)
        loss = loss + 20 * nn.functional.l1_loss(predicted[objects], boxes[chosen][objects])
        loss = loss + 2 * nn.functional.cross_entropy(segmenter.read(tokens), masks[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    return detector.eval(), segmenter.eval()


def export(model: nn.Module, path: Path, outputs: list[str]) -> None:
    """Write a model as ONNX with a free number of samples."""
    example = torch.zeros(2, 3, SIDE, SIDE)
    torch.onnx.export(
        model, (example,), str(path), dynamo=True, external_data=False, verbose=False,
        input_names=["pixel_values"], output_names=outputs, dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip


def write_images(scenes: Scenes, folder: Path) -> list[str]:
    """Write images as PNG files; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index:04d}.png" for index in range(len(scenes.images))]
    for name, image in zip(names, scenes.images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / name)
    return names


def annotations(scenes: Scenes, names: list[str]) -> dict[str, list[dict[str, object]]]:
    """The boxes as COCO has them, categories counted from 1."""
    entries = []
    for image, slot in zip(*np.nonzero(scenes.classes >= 0), strict=True):
        x, y, width, height = (SIDE * scenes.boxes[image, slot]).astype(float).tolist()
        entries.append(
            {
                "id": len(entries) + 1, "image_id": int(image) + 1, "iscrowd": 0, "area": width * height,
                "category_id": int(scenes.classes[image, slot]) + 1,
                "bbox": [x - width / 2, y - height / 2, width, height],
            }
        )  # fmt: skip
    sides = {"width": SIDE, "height": SIDE}
    images = [{"id": index + 1, "file_name": name, **sides} for index, name in enumerate(names)]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(NAMES)]
    return {"images": images, "annotations": entries, "categories": categories}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training images (8)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    detector, segmenter = train(args.epochs)
    export(detector, args.out / "detector.onnx", ["logits", "pred_boxes"])
    export(segmenter, args.out / "segmenter.onnx", ["logits"])
    write_images(draw(CALIBRATION, seed=2), args.out / "calib")
    scenes = draw(VALIDATION, seed=3)
    names = write_images(scenes, args.out / "val")
    (args.out / "val.json").write_text(json.dumps(annotations(scenes, names)))
    (args.out / "masks").mkdir(exist_ok=True)
    for name, mask in zip(names, scenes.masks, strict=True):
        Image.fromarray(mask).save(args.out / "masks" / name)


if __name__ == "__main__":
    main()
