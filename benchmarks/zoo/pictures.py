"""Pictures drawn on the spot: lines and pages of text, shapes on noise, faces of a sort."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WORDS = (
    *("budget", "layer", "weight", "width", "signal", "north", "river", "seven", "orange", "window", "paper"),
    *("2048", "3.14", "A7-X9", "total", "engine", "market", "summer", "QUANTUM", "violin", "Berlin", "lemon"),
)
_COLOURS = ("crimson", "navy", "seagreen", "darkorange", "purple", "teal", "sienna", "black")


def text_lines(count: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Lines of text, dark on light, uint8, shape (N, H, W, 3)."""
    rng = np.random.default_rng(seed)
    return np.stack([_line(rng, height, width) for _ in range(count)])


def _line(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    image = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(200, 256, 3)))
    text = " ".join(rng.choice(WORDS, max(1, width // (3 * height) + 1)))
    size = int(height * rng.uniform(0.45, 0.7))
    place = (rng.integers(2, 8), rng.integers(0, max(1, height - size - height // 5)))
    ImageDraw.Draw(image).text(place, text, _dark(rng), ImageFont.load_default(size))
    return np.asarray(image.rotate(rng.uniform(-2, 2), fillcolor=image.getpixel((0, 0))))


def pages(count: int, side: int, *, seed: int = 0) -> np.ndarray:
    """Square pages with some lines of text of several sizes, uint8, shape (N, S, S, 3)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        image = Image.new("RGB", (side, side), tuple(int(v) for v in rng.integers(170, 256, 3)))
        draw, top = ImageDraw.Draw(image), int(rng.integers(4, side // 6))
        while top < side - 40:
            size = int(rng.integers(14, 40))
            text = " ".join(rng.choice(WORDS, rng.integers(1, 4)))
            draw.text((rng.integers(4, side // 3), top), text, _dark(rng), ImageFont.load_default(size))
            top += int(size * rng.uniform(1.3, 2.5))
        found.append(np.asarray(image))
    return np.stack(found)


def shapes(count: int, side: int, *, seed: int = 0) -> np.ndarray:
    """Coloured shapes on smooth noise, uint8, shape (N, S, S, 3)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
        draw = ImageDraw.Draw(noise)
        for _ in range(rng.integers(1, 5)):
            x, y = rng.integers(0, side * 3 // 4, 2)
            box = (x, y, x + rng.integers(side // 8, side // 2), y + rng.integers(side // 8, side // 2))
            kind = rng.choice(("ellipse", "rectangle"))
            getattr(draw, kind)([int(v) for v in box], fill=str(rng.choice(_COLOURS)))
        found.append(np.asarray(noise))
    return np.stack(found)


def faces(count: int, side: int, *, seed: int = 0) -> np.ndarray:
    """Ovals with eyes, brows, nose and mouth, turned and blurred a little, uint8, shape (N, S, S, 3)."""
    rng = np.random.default_rng(seed)
    return np.stack([_face(rng, side) for _ in range(count)])


def _face(rng: np.random.Generator, side: int) -> np.ndarray:
    image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((side, side))
    draw = ImageDraw.Draw(image)
    skin = tuple(int(v) for v in np.array((224, 180, 150)) * rng.uniform(0.4, 1.1))
    width, height = side * rng.uniform(0.2, 0.32), side * rng.uniform(0.28, 0.42)
    x, y = side * rng.uniform(0.4, 0.6), side * rng.uniform(0.42, 0.58)

    def oval(dx: float, dy: float, rx: float, ry: float, colour: object) -> None:
        cx, cy = x + dx * width, y + dy * height
        box = (cx - rx * width, cy - ry * height, cx + rx * width, cy + ry * height)
        draw.ellipse([int(v) for v in box], fill=colour)

    oval(0, -0.25, 1.1, 1.0, str(rng.choice(("black", "saddlebrown", "goldenrod", "gray"))))
    oval(0, 0, 1, 1, skin)
    for sign in (-1, 1):
        oval(sign * 0.4, -0.2, 0.2, 0.09, "white")
        oval(sign * 0.4, -0.2, 0.08, 0.08, "black")
        oval(sign * 0.4, -0.38, 0.24, 0.04, "black")
    oval(0, 0.12, 0.1, 0.16, tuple(int(0.8 * v) for v in skin))
    oval(0, 0.52, 0.32, rng.uniform(0.05, 0.14), "firebrick")
    return np.asarray(image.rotate(rng.uniform(-15, 15)).filter(ImageFilter.GaussianBlur(side / 200)))


def _dark(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(0, 110, 3))


def scaled(images: np.ndarray, *, layout: str = "NCHW", low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Pixels from `low` to `high`, float32, channels where `layout` has them."""
    numbers = (images.astype(np.float32) / 255) * np.float32(high - low) + np.float32(low)
    return np.ascontiguousarray(numbers.transpose(0, 3, 1, 2)) if layout == "NCHW" else numbers
