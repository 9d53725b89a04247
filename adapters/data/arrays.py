"""Arrays of samples held against a model's input: their type, their layout, whether they are images."""

from __future__ import annotations

import numpy as np

from lampq.adapters.data.images import ImageTransform
from lampq.adapters.data.preprocess import Preprocess
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import CHANNELS, FLOATING, InputSpec


def check_labels(labels: np.ndarray, count: int, source: str, *, classes: int | None = None) -> np.ndarray:
    """Labels as int64.

    Args:
        labels: What the data says.
        count: Samples they belong to.
        source: Of the data, for the message.
        classes: Number of classes there are, where known.

    Raises:
        AdapterError: They are no integers from 0 on, are not one per sample, or exceed the classes.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise AdapterError(f"data {source}: y has shape {labels.shape}; {count} samples need one label each")
    if labels.dtype.kind not in "iu":
        raise AdapterError(f"data {source}: labels are {labels.dtype}; give class indices as integers")
    labels = labels.astype(np.int64)
    if count and labels.min() < 0:
        raise AdapterError(f"data {source}: label {labels.min()} is negative; classes count from 0")
    if classes is not None and count and labels.max() >= classes:
        raise AdapterError(f"data {source}: label {labels.max()} has no class; the last is {classes - 1}")
    return labels


def prepare(
    inputs: np.ndarray, spec: InputSpec, preprocess: Preprocess, source: str, called: str = "x"
) -> tuple[np.ndarray, ImageTransform | None, Preprocess | None]:
    """Tell images, which are to be preprocessed, from samples, which are taken as they are.

    Args:
        inputs: An array, samples first.
        spec: The input it is for.
        preprocess: For images.
        source: Of the data, for messages.
        called: Name of the array, likewise.

    Returns:
        uint8 images as (N, H, W, C), how to transform them, and the complete record of it; or samples in the
        model's layout and type, None and None.

    Raises:
        AdapterError: The array fits neither the model's input nor an image.
    """
    if inputs.ndim == 0:
        raise AdapterError(f"data {source}: {called} is a single value; the first axis holds the samples")
    if inputs.dtype != np.uint8 or spec.dtype not in (*FLOATING, "uint8") or not _may_be_images(spec):
        return fit_to_input(inputs, spec, source, called), None, None
    pixels = as_pixels(inputs, source, called)
    record = preprocess.for_input(spec, image_size=pixels.shape[1:3])
    return pixels, ImageTransform.from_preprocess(record, dtype=element_type(spec)), record


def _may_be_images(spec: InputSpec) -> bool:
    return len(spec.shape) >= 3 or spec.dtype in FLOATING


def fit_to_input(inputs: np.ndarray, spec: InputSpec, source: str, called: str = "x") -> np.ndarray:
    """Preprocessed samples in the model's layout and type; a view where nothing changes.

    Channels are moved first or last, or an axis of one channel added, where only that makes the shapes agree.
    Integers go to a floating input of one or two axes, which takes no images, as they are.

    Raises:
        AdapterError: The shapes do not agree, the types cannot, or a value is NaN or infinite.
    """
    floating = spec.dtype in FLOATING
    kinds = "f" if floating and len(spec.shape) > 2 else "fbiu" if floating else "biu"
    if inputs.dtype.kind not in kinds:
        wanted = "floats, or uint8 images" if floating else spec.dtype
        raise AdapterError(
            f"data {source}: {called} is {inputs.dtype}, but model input {spec} takes {wanted}"
        )
    readings = [inputs]
    if inputs.ndim == 4:
        readings += [inputs.transpose(0, 3, 1, 2), inputs.transpose(0, 2, 3, 1)]
    elif inputs.ndim == 3:
        readings += [inputs[:, None], inputs[..., None]]
    fitting = next((array for array in readings if spec.accepts(array.shape)), None)
    if fitting is None:
        shape = "x".join(str(side) for side in inputs.shape)
        raise AdapterError(f"data {source}: {called} of shape {shape} does not fit the model's input {spec}")
    if not floating:
        return as_integers(fitting, spec, source, called)
    # Models of half precision are fed by their adapter; data stay single.
    with np.errstate(over="ignore"):
        fitting = fitting.astype(np.float32, copy=False)
    for start in range(0, len(fitting), 64):
        finite = np.isfinite(fitting[start : start + 64])
        if not finite.all():
            sample = start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
            raise AdapterError(f"data {source}: NaN or infinity in sample {sample} of {called}; remove it")
    return fitting


def as_integers(values: np.ndarray, spec: InputSpec, source: str, called: str = "x") -> np.ndarray:
    """Integers, or yes and no, in the type of an input that takes these.

    Raises:
        AdapterError: The input takes neither, or a value lies beyond its type.
    """
    dtype = np.dtype(spec.dtype)
    if dtype.kind not in "biu":
        raise AdapterError(f"model input {spec} takes {spec.dtype}, of which data cannot be made here")
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if values.size and (values.min() < low or values.max() > high):
        raise AdapterError(
            f"data {source}: {called} holds values beyond the type of the model's input {spec}"
        )
    return values.astype(dtype, copy=False)


def as_pixels(inputs: np.ndarray, source: str, called: str = "x") -> np.ndarray:
    """uint8 images as (N, H, W, C), a view.

    Raises:
        AdapterError: The shape is not that of grey, RGB or RGBA images, channels first or last.
    """
    if inputs.ndim == 3:
        return inputs[..., None]
    layout = InputSpec(name="x", shape=tuple(max(side, 1) for side in inputs.shape)).layout
    if inputs.ndim == 4 and layout is not None:
        pixels = inputs if layout == "NHWC" else inputs.transpose(0, 2, 3, 1)
        if pixels.shape[3] in CHANNELS:
            return pixels
    raise AdapterError(
        f"data {source}: uint8 {called} of shape {inputs.shape} holds no grey, RGB or RGBA images"
    )


def element_type(spec: InputSpec) -> str:
    """Element type of the samples made from images."""
    return "uint8" if spec.dtype == "uint8" else "float32"
