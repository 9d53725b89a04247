"""Inputs that are the same for every sample: sizes of images, flags, a fixed text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.data.named_arrays import takes
from lampq.core.values.batch import Batch
from lampq.core.values.bounded import read_bytes
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import FLOATING, InputSpec
from lampq.core.values.messages import reason

# Of a file that holds one sample.
_MOST_BYTES = 1 << 30
_WORDS = {"true": True, "false": False}


def parse_constant(text: str) -> tuple[str, np.ndarray]:
    """Read `NAME=VALUE`: a number, numbers with commas between, or the path of an .npy file.

    Raises:
        AdapterError: It is of another form, or the file cannot be read.

    Example:
        >>> parse_constant("size=480,640")
        ('size', array([480, 640]))
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise AdapterError(f"input {text!r} is not of the form NAME=VALUE")
    if value.lower().endswith(".npy"):
        return name, _load(name, Path(value))
    parts = [part.strip().lower() for part in value.split(",")]
    try:
        numbers = [_WORDS[part] if part in _WORDS else _number(part) for part in parts]
    except ValueError as err:
        raise AdapterError(
            f"input {name}: {value!r} is neither numbers like 480,640 nor the path of an .npy file"
        ) from err
    return name, np.array(numbers if len(numbers) > 1 else numbers[0])


def constant_inputs(values: Mapping[str, Any], specs: Sequence[InputSpec]) -> dict[str, np.ndarray]:
    """What inputs are fixed to, each as one sample of its input's shape and type.

    A number fills an input whose shape is known; as many numbers as a sample has take its shape.

    Args:
        values: Numbers or arrays by name of the input.
        specs: All inputs of the model.

    Raises:
        AdapterError: No input is so called, or one cannot take its value.
    """
    by_name = {spec.name: spec for spec in specs}
    unknown = next((name for name in values if name not in by_name), None)
    if unknown is not None:
        raise AdapterError(f"no input is called {unknown}; {takes(specs)}")
    return {name: _sample(np.asarray(value), by_name[name]) for name, value in values.items()}


def with_constants(batch: Batch, constants: Mapping[str, np.ndarray]) -> Batch:
    """The samples, each with the constant inputs beside it."""
    if not constants:
        return batch
    sizes = zip(batch.groups, batch.sizes, strict=True)
    return Batch(
        [
            {**group, **{name: np.repeat(value[None], size, axis=0) for name, value in constants.items()}}
            for group, size in sizes
        ]
    )


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _load(name: str, path: Path) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(read_bytes(path, _MOST_BYTES)), allow_pickle=False)
    except OSError as err:
        raise AdapterError(f"input {name}: {path} cannot be read ({err.strerror or reason(err)})") from err
    except (ValueError, EOFError, MemoryError, SyntaxError) as err:
        raise AdapterError(f"input {name}: {path} is no .npy file of plain numbers ({reason(err)})") from err
    if not isinstance(array, np.ndarray):
        raise AdapterError(f"input {name}: {path} holds several arrays; save one, as .npy")
    return array


def _sample(value: np.ndarray, spec: InputSpec) -> np.ndarray:
    """A value in the shape and type of one sample."""
    dims = spec.shape[1:]
    known = tuple(dim for dim in dims if dim is not None)
    if spec.accepts((1, *value.shape)):
        shaped = value
    elif spec.accepts(value.shape) and len(value) == 1:
        shaped = value[0]
    elif value.ndim == 0 and len(known) == len(dims):
        shaped = np.full(known, value)
    elif len(known) == len(dims) and value.size == int(np.prod(known)):
        shaped = value.reshape(known)
    else:
        raise AdapterError(
            f"input {spec} cannot be fixed to an array of shape {value.shape}; "
            f"give one sample, as an .npy file where it has several axes"
        )
    dtype = np.dtype(np.float32 if spec.dtype in FLOATING else spec.dtype)
    if value.dtype.kind not in "biuf" or dtype.kind not in "biuf":
        raise AdapterError(f"input {spec} cannot be fixed to {value.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        cast = shaped.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast, shaped):
        raise AdapterError(f"input {spec} cannot be fixed to {shaped.ravel()[0]}: its type is another")
    return np.ascontiguousarray(cast)
