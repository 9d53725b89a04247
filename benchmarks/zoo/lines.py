"""Printed lines of words, for models that read them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from zoo import pictures

# Pixels of the reader's input, and around the text of a line.
HEIGHT, WIDTH, EDGE = 48, 320, 4


def rendered(count: int, *, close: bool = True) -> tuple[np.ndarray, list[str]]:
    """Printed lines of words, float32, shape (N, 3, 48, 320), and what they say.

    Each is cut out closely, scaled to the height and padded with 0, as the reader's package does it.

    Args:
        count: N.
        close: False leaves white all around, where the reader sees spaces that nobody wrote.
    """
    rng, lines, texts = np.random.default_rng(5), np.zeros((count, 3, HEIGHT, WIDTH), dtype=np.float32), []
    for line in lines:
        text, font = (
            " ".join(rng.choice(pictures.WORDS, 3)),
            ImageFont.load_default(int(rng.integers(26, 33))),
        )
        left, top, right, bottom = (
            map(int, font.getbbox(text)) if close else (-2, -2, WIDTH - 10, HEIGHT - 10)
        )
        image = Image.new("RGB", (right - left + 2 * EDGE, bottom - top + 2 * EDGE), "white")
        ImageDraw.Draw(image).text((EDGE - left, EDGE - top), text, "black", font)
        width = min(WIDTH, -(-HEIGHT * image.width // image.height))
        pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR))
        line[:, :, :width] = pictures.scaled(pixels[None], low=-1.0)[0]
        texts.append(text)
    return lines, texts
