"""Files that say what is right: COCO annotations, masks, tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lampq.adapters.data.images import pillow
from lampq.adapters.data.npz import load_npz
from lampq.core.values.bounded import parse_json, read_bytes
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed, reason

_MOST_BYTES = 1 << 30


def read_truth(path: Path, names: Sequence[str]) -> Any:
    """What is right of some samples.

    Args:
        path: A .json of COCO annotations; a folder with a mask, .png, for each image; an .npz with `y`; a .jsonl with
            a list of tokens or a text for each sample.
        names: Files of the samples, or empty.

    Returns:
        The annotations as a mapping, or one mask, list or text for each sample.

    Raises:
        AdapterError: It cannot be read, is of another kind, or lacks a mask.
        MissingExtraError: Masks are to be read, and Pillow is not installed.
    """
    if path.is_dir():
        return _masks(path, names)
    readers = {".json": _json, ".jsonl": _lines, ".npz": _array}
    if path.suffix.lower() not in readers:
        raise AdapterError(f"{path}: give a .json, .jsonl or .npz file, or a folder of masks")
    return readers[path.suffix.lower()](path)


def _json(path: Path) -> Any:
    try:
        return json.loads(read_bytes(path, _MOST_BYTES))
    except OSError as err:
        raise AdapterError(f"{path}: cannot be read ({err.strerror or err})") from err
    except (ValueError, RecursionError) as err:
        raise AdapterError(f"{path}: no JSON ({reason(err)})") from err


def _lines(path: Path) -> list[Any]:
    try:
        lines = read_bytes(path, _MOST_BYTES).decode("utf-8-sig").splitlines()
        return [parse_json(line) for line in lines if line.strip()]
    except OSError as err:
        raise AdapterError(f"{path}: cannot be read ({err.strerror or err})") from err
    except ValueError as err:
        raise AdapterError(f"{path}: no JSON on each line ({reason(err)})") from err


def _array(path: Path) -> np.ndarray:
    arrays, held = load_npz(path, {"y"})
    if "y" not in arrays:
        raise AdapterError(f"{path}: holds {listed(held) or 'nothing'}; save what is right as y")
    return arrays["y"]


def _masks(folder: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The mask of each image, under the image's name with .png at its end."""
    if not names:
        raise AdapterError(f"{folder}: a folder of masks goes with a folder of images; give an .npz with y")
    masks = []
    for name in names:
        path = folder / PurePosixPath(name).with_suffix(".png")
        if not path.is_file():
            raise AdapterError(f"{folder}: no mask {path.name} for image {name}")
        try:
            with pillow().open(path) as image:
                masks.append(np.asarray(image))
        except (OSError, ValueError) as err:
            raise AdapterError(f"mask {path}: cannot be decoded ({reason(err)})") from err
    return masks
