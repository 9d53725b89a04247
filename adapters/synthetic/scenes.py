"""Images of no camera: occluding shapes of all sizes on rough ground, with the statistics of photographs.

A photograph's power falls with the square of the frequency, its colours vary along brightness most (Ruderman et al.
1998), and opaque objects whose sizes follow an inverse cube cover each other ("dead leaves": Lee, Mumford, Huang
2001). Networks see more of their trained selves in such images than in noise (Baradad et al. 2021).
"""

from __future__ import annotations

import numpy as np

# Below this many pixels a side, scenes are drawn twice as large and averaged: edges are soft as in photographs.
_FINE = 64
_FEWEST, _MOST = 3, 40
# Half-widths of shapes, as parts of the longer side.
_SMALLEST, _LARGEST = 0.04, 0.7
# Directions of colour for brightness, yellow against blue and red against green, scaled to their spread.
_COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]], dtype=np.float32)
_COLOURS /= np.linalg.norm(_COLOURS)


def scenes(count: int, height: int, width: int, *, seed: int, first: int = 0) -> np.ndarray:
    """Scenes as RGB, float32 in [0, 1], shape (count, 3, height, width).

    Every scene depends on the seed and its number alone.

    Args:
        count: How many.
        height: Pixels.
        width: Pixels.
        seed: Any integer from 0.
        first: Number of the first.
    """
    return np.stack(
        [
            _scene(np.random.default_rng([seed, number]), height, width)
            for number in range(first, first + count)
        ]
    )


def _scene(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    factor = 2 if max(height, width) < _FINE else 1
    size = (height * factor, width * factor)
    canvas = 0.2 + 0.6 * _ground(rng, *size)
    texture = _ground(rng, *size)
    texture -= texture.mean(axis=(1, 2), keepdims=True)
    for _ in range(int(rng.integers(_FEWEST, _MOST))):
        _paint(rng, canvas, texture)
    fine = np.clip(canvas, 0, 1).reshape(3, height, factor, width, factor)
    scene: np.ndarray = fine.mean(axis=(2, 4))
    return scene


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coloured noise whose power falls with the square of the frequency, in [0, 1], shape (3, height, width)."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.sqrt(down**2 + across**2)
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width))
    amplitude[0, 0] = 0
    phases = rng.standard_normal((2, 3, *amplitude.shape))
    waves = np.fft.irfft2((phases[0] + 1j * phases[1]) * amplitude, s=(height, width))
    waves /= np.maximum(waves.std(axis=(1, 2), keepdims=True), 1e-6)
    colours = np.einsum("oc,chw->ohw", _COLOURS, waves.astype(np.float32))
    brightness = rng.uniform(0.3, 0.65) + rng.normal(0, 0.04, (3, 1, 1))
    contrast = 0.35 * rng.uniform(0.5, 1.3)
    ground: np.ndarray = np.clip(brightness + contrast * colours, 0, 1)
    return ground.astype(np.float32)


def _paint(rng: np.random.Generator, canvas: np.ndarray, texture: np.ndarray) -> None:
    """One opaque ellipse or rectangle of its own colour, shading and roughness, in place."""
    _, height, width = canvas.shape
    longer = max(height, width)
    # Inverse cube by inverting its distribution function.
    radius = _SMALLEST / np.sqrt(1 - rng.random() * (1 - (_SMALLEST / _LARGEST) ** 2))
    middle = rng.random(2) * (height, width)
    angle, flatness = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
    round_one = rng.random() < 0.6
    brightness = np.clip(rng.normal(0.47, 0.25), 0, 1)
    colour = brightness + 2 * rng.random() * rng.normal(0, 0.1, 3)
    slope, roughness = rng.normal(0, 0.4, 2), 0.8 * rng.random()
    rows, columns = (
        _window(at, 1.5 * radius * longer, side) for at, side in zip(middle, (height, width), strict=True)
    )
    y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - middle[0]) / longer
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) - middle[1]) / longer
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (y * np.cos(angle) - x * np.sin(angle)) / flatness
    inside = u**2 + v**2 < radius**2 if round_one else np.maximum(abs(u), abs(v)) < radius
    shading = 0.2 * (u * slope[0] + v * slope[1]) / max(radius, 0.1)
    window = (slice(None), rows, columns)
    shape = colour[:, None, None] + shading + roughness * texture[window]
    canvas[window] = np.where(inside, shape, canvas[window])


def _window(middle: float, reach: float, side: int) -> slice:
    """The pixels of an axis that a shape can touch."""
    return slice(max(0, int(middle - reach)), min(side, int(middle + reach) + 1))
