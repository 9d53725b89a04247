"""Preprocessing records from a Hugging Face `preprocessor_config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lampq.adapters.data.preprocess import INTERPOLATIONS, Preprocess
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.files import read_json
from lampq.core.values.input_spec import InputSpec

FILE_NAME = "preprocessor_config.json"

# In these families a bare number is the shorter side; in all others it is both sides.
_SHORTEST_EDGE = ("bit", "chineseclip", "clip", "convnext", "levit", "mobilenet", "mobilevit", "poolformer")
_UNSUPPORTED = ("do_pad", "rescale_offset", "include_top", "do_crop_margin", "do_image_splitting")
_IMAGE_KEYS = ("image_mean", "do_resize", "do_rescale", "rescale_factor", "crop_size")


def find_preprocess(model: str | Path, spec: InputSpec) -> Preprocess | None:
    """The preprocessing that lies beside a model, or None where there is none for images.

    Looked for in the model's folder (a checkpoint directory itself) and, for a model in a folder `onnx`, in
    the one above. Where the file and the model disagree on the size, the model is right: it may have been
    exported at another resolution.

    Raises:
        AdapterError: The file is malformed, or asks for something that is not supported here.
    """
    model = Path(model)
    folder = model if model.is_dir() else model.parent
    folders = (folder, folder.parent) if folder.resolve().name == "onnx" else (folder,)
    for place in folders:
        path = place / FILE_NAME
        if path.is_file():
            if not _is_for_images(_load(path)):
                return None
            record = read_preprocessor_config(path)
            if record.size is None:
                return record
            try:
                record.for_input(spec)
            except AdapterError:
                return dataclasses.replace(record, size=None)
            return record
    return None


def read_preprocessor_config(path: Path) -> Preprocess:
    """Read a Hugging Face `preprocessor_config.json`.

    Raises:
        AdapterError: The file is missing, malformed, or asks for something that is not supported here.
    """
    config = _load(path)
    if not _is_for_images(config):
        raise AdapterError(f"{path}: no image preprocessing in it; give mean, std and size instead")
    for key in _UNSUPPORTED:
        if config.get(key):
            raise AdapterError(f"{path}: {key} is not supported; give mean, std and size instead")
    try:
        return Preprocess(
            **_normalization(config),
            **_geometry(config),
            interpolation=_interpolation(config.get("resample", 3)),
            channel_order="BGR" if config.get("do_flip_channel_order") else "RGB",
        )
    except (AdapterError, KeyError, TypeError, ValueError, ZeroDivisionError) as err:
        reason = f"{err.args[0]} is missing" if isinstance(err, KeyError) else err
        raise AdapterError(f"{path}: {reason}") from err


def _load(path: Path) -> Mapping[str, Any]:
    try:
        config = read_json(path, "preprocessing")
    except RecordError as err:
        raise AdapterError(str(err)) from err
    # A processor of several kinds of input keeps the part for images one level down.
    inner = config.get("image_processor")
    return inner if isinstance(inner, dict) else config


def _is_for_images(config: Mapping[str, Any]) -> bool:
    return any(key in config for key in _IMAGE_KEYS)


def _normalization(config: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "scale": float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    }
    if config.get("do_normalize", "image_mean" in config):
        for name in ("mean", "std"):
            value = config[f"image_{name}"]
            settings[name] = tuple(float(v) for v in (value if isinstance(value, list) else [value]))
    return settings


def _geometry(config: Mapping[str, Any]) -> dict[str, Any]:
    """Size, resize mode and crop of the record."""
    crop = _sides(config["crop_size"]) if config.get("do_center_crop") and "crop_size" in config else None
    if not config.get("do_resize", True) or config.get("size") is None:
        return {"size": crop}
    size = config["size"]
    family = str(config.get("image_processor_type") or config.get("feature_extractor_type")).lower()
    if isinstance(size, dict):
        by_shortest = "shortest_edge" in size
    else:
        by_shortest = isinstance(size, int) and family.startswith(_SHORTEST_EDGE)
    resized = _sides(size)
    if family.startswith("levit") and by_shortest:
        resized = (int(resized[0] * 256 / 224),) * 2
    part = config.get("crop_pct")
    if part is not None and not (family.startswith("convnext") and resized[0] >= 384):
        crop, by_shortest = crop or resized, True
        resized = (int(resized[0] / part), int(resized[1] / part))
    elif part is not None:
        by_shortest = False
    target = crop or resized
    crop_pct = target[0] / resized[0]
    if crop_pct > 1 or abs(target[1] / resized[1] - crop_pct) > 0.02:
        raise AdapterError(f"a crop of {target} from an image resized to {resized} is not supported")
    return {"size": target, "resize": "shortest" if by_shortest else "plain", "crop_pct": crop_pct}


def _sides(size: Any) -> tuple[int, int]:
    """(height, width) of any spelling: 224, [224, 224], {height, width} or {shortest_edge}."""
    if isinstance(size, dict) and "height" in size and "width" in size:
        sides = [size["height"], size["width"]]
    elif isinstance(size, dict) and "shortest_edge" in size and "longest_edge" not in size:
        sides = [size["shortest_edge"]]
    else:
        sides = size if isinstance(size, list) else [size]
    if not 1 <= len(sides) <= 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise AdapterError(f"size {size} is neither height and width nor shortest_edge alone")
    return sides[0], sides[-1]


def _interpolation(resample: Any) -> str:
    """The name of Pillow's filter number."""
    if isinstance(resample, str) and resample.lower() in INTERPOLATIONS:
        return resample.lower()
    if isinstance(resample, int) and 0 <= resample < len(INTERPOLATIONS):
        return INTERPOLATIONS[resample]
    raise AdapterError(f"resample {resample!r} is no filter of Pillow (0 to {len(INTERPOLATIONS) - 1})")
