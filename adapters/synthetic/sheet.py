"""Pictures side by side on a contact sheet."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lampq.adapters.data.dataset import Dataset
from lampq.adapters.data.images import pillow
from lampq.core.values.errors import RecordError
from lampq.core.values.publishing import atomic_path

_MOST = 256
# Small pictures are enlarged to this many pixels, without smoothing.
_SIDE = 64
_GAP = 2


def write_sheet(dataset: Dataset, path: Path) -> None:
    """Write the pictures of synthetic data as one PNG, 256 of them at most.

    Raises:
        RecordError: They are no pictures, or the name is not that of a .png.
        MissingExtraError: Pillow is not installed.
        OutputError: It cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise RecordError(f"contact sheet {path}: name a .png file")
    if dataset.pictures is None:
        raise RecordError(f"contact sheet {path}: the model takes no pictures, there is nothing to show")
    sheet = _arranged(dataset.pictures[:_MOST])
    image = pillow().fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _arranged(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W, C) as one picture, row by row on white."""
    count, height, width, channels = pictures.shape
    scale = max(1, _SIDE // max(height, width))
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    high, wide = height * scale + _GAP, width * scale + _GAP
    sheet = np.full((rows * high + _GAP, columns * wide + _GAP, channels), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * high + _GAP, number % columns * wide + _GAP
        enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        sheet[top : top + height * scale, left : left + width * scale] = enlarged
    return sheet
