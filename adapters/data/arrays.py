"""Arrays of samples: the contents of an .npz file, checked and read batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lampq.adapters.data.batch import Batch, fill_batches
from lampq.adapters.data.images import ImageTransform
from lampq.adapters.data.preprocess import Preprocess
from lampq.core.values.bounded import open_regular
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import CHANNELS, FLOATING, InputSpec
from lampq.core.values.messages import listed
from lampq.core.values.npz import read_npz

_MOST_CLASSES = 1 << 20


def load_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    """The arrays `x`, `y` and `classes` of an .npz file; the last two may be absent. It runs no code.

    Raises:
        AdapterError: The file is no .npz, holds no `x`, needs pickle, or expands to a suspicious size.
    """
    try:
        with open_regular(path) as handle:
            found, names = read_npz(handle, ("x", "y", "classes"))
    except FileNotFoundError as err:
        raise AdapterError(f"data {path}: no such file") from err
    except OSError as err:
        raise AdapterError(f"data {path}: cannot be read ({err.strerror})") from err
    except ValueError as err:
        raise AdapterError(f"data {path}: not a readable .npz file ({err})") from err
    if "x" not in found:
        held = listed(names) or "nothing"
        raise AdapterError(f"data {path}: holds {held}; save the samples as x (and labels as y)")
    inputs, labels, classes = found["x"], found.get("y"), found.get("classes")
    if classes is None:
        return inputs, labels, None
    if classes.ndim != 1 or classes.dtype.kind != "U" or len(classes) > _MOST_CLASSES:
        raise AdapterError(f"data {path}: classes has type {classes.dtype}; save a list of strings")
    return inputs, labels, tuple(str(name) for name in classes)


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
    inputs: np.ndarray, spec: InputSpec, preprocess: Preprocess, source: str
) -> tuple[np.ndarray, ImageTransform | None, Preprocess | None]:
    """Tell images, which are to be preprocessed, from samples, which are taken as they are.

    Returns:
        uint8 images as (N, H, W, C), how to transform them, and the complete record of it; or samples in the
        model's layout and type, None and None.

    Raises:
        AdapterError: The array fits neither the model's input nor an image.
    """
    if inputs.ndim == 0:
        raise AdapterError(f"data {source}: x is a single value; the first axis holds the samples")
    if inputs.dtype != np.uint8 or spec.dtype not in (*FLOATING, "uint8"):
        return fit_to_input(inputs, spec, source), None, None
    pixels = as_pixels(inputs, source)
    record = preprocess.for_input(spec, image_size=pixels.shape[1:3])
    return pixels, ImageTransform.from_preprocess(record, dtype=element_type(spec)), record


def fit_to_input(inputs: np.ndarray, spec: InputSpec, source: str) -> np.ndarray:
    """Preprocessed samples in the model's layout and type; a view where nothing changes.

    Channels are moved first or last, or an axis of one channel added, where only that makes the shapes agree.

    Raises:
        AdapterError: The shapes do not agree, the types cannot, or a value is NaN or infinite.
    """
    floating = spec.dtype in FLOATING
    kinds = "f" if floating else "iu"
    if inputs.dtype.kind not in kinds:
        wanted = "floats, or uint8 images" if floating else spec.dtype
        raise AdapterError(f"data {source}: x is {inputs.dtype}, but model input {spec} takes {wanted}")
    readings = [inputs]
    if inputs.ndim == 4:
        readings += [inputs.transpose(0, 3, 1, 2), inputs.transpose(0, 2, 3, 1)]
    elif inputs.ndim == 3:
        readings += [inputs[:, None], inputs[..., None]]
    fitting = next((array for array in readings if spec.accepts(array.shape)), None)
    if fitting is None:
        shape = "x".join(str(side) for side in inputs.shape)
        raise AdapterError(f"data {source}: x of shape {shape} does not fit the model's input {spec}")
    if not floating:
        return _as_integers(fitting, spec, source)
    # Models of half precision are fed by their adapter; data stay single.
    with np.errstate(over="ignore"):
        fitting = fitting.astype(np.float32, copy=False)
    for start in range(0, len(fitting), 64):
        finite = np.isfinite(fitting[start : start + 64])
        if not finite.all():
            sample = start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
            raise AdapterError(f"data {source}: NaN or infinity in sample {sample} of x; remove it")
    return fitting


def _as_integers(inputs: np.ndarray, spec: InputSpec, source: str) -> np.ndarray:
    limits = np.iinfo(spec.dtype)
    if inputs.size and (inputs.min() < limits.min or inputs.max() > limits.max):
        raise AdapterError(f"data {source}: x holds values beyond the type of the model's input {spec}")
    return inputs.astype(spec.dtype, copy=False)


def as_pixels(inputs: np.ndarray, source: str) -> np.ndarray:
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
    raise AdapterError(f"data {source}: uint8 x of shape {inputs.shape} holds no grey, RGB or RGBA images")


def element_type(spec: InputSpec) -> str:
    """Element type of the samples made from images."""
    return "uint8" if spec.dtype == "uint8" else "float32"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayReader:
    """Chosen samples of arrays held in memory.

    Attributes:
        inputs: Preprocessed samples, or images as (N, H, W, C) where a transform is given.
        labels: Labels of the chosen samples in their order, int64, or None.
        chosen: Indices into `inputs` in the order of the samples.
        transform: From pixels to a sample, or None where `inputs` are the samples.
        threads: Worker threads of the transform.
        source: Name of the data, for messages.
    """

    inputs: np.ndarray
    labels: np.ndarray | None
    chosen: np.ndarray
    transform: ImageTransform | None
    threads: int
    source: str

    def count(self) -> int:
        """Number of samples."""
        return len(self.chosen)

    def batches(self, size: int) -> Iterator[Batch]:
        """Samples in order, `size` at a time."""
        for start, inputs in self._inputs(size):
            stop = start + len(inputs)
            yield Batch(inputs=inputs, labels=None if self.labels is None else self.labels[start:stop])

    def digest(self) -> str:
        """SHA-256 over type, shape and content of the chosen samples and their labels."""
        total = hashlib.sha256(f"{self.inputs.dtype.str}{self.inputs.shape[1:]}".encode())
        for index in self.chosen:
            total.update(np.ascontiguousarray(self.inputs[index]).data)
        if self.labels is not None:
            total.update(self.labels.astype("<i8").data)
        return total.hexdigest()

    def _inputs(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        if self.transform is None:
            for start in range(0, len(self.chosen), size):
                yield start, np.ascontiguousarray(self.inputs[self.chosen[start : start + size]])
        else:
            shape, dtype = self.transform.sample_shape, self.transform.dtype
            yield from fill_batches(self._fill, len(self.chosen), size, shape, dtype, self.threads)

    def _fill(self, index: int, out: np.ndarray) -> None:
        chosen = int(self.chosen[index])
        try:
            if self.transform is not None:
                self.transform.from_pixels(self.inputs[chosen], out)
        except ValueError as err:
            raise AdapterError(f"data {self.source}: sample {chosen} of x: {err}") from err
