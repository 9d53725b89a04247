"""Inputs that are the same for every sample: sizes of images, flags, a fixed text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.data.named_arrays import takes
from lampq.core.values.batch import Batch, Group
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constant:
    """What an input is fixed to.

    Attributes:
        spec: The input.
        value: One sample in the input's type, or a number that fills the shape of the input beside it.
        fills: Whether it is such a number: the length of a text, the size of an image is that of the others.
    """

    spec: InputSpec
    value: np.ndarray
    fills: bool = False

    def beside(self, group: Group, samples: int) -> np.ndarray:
        """The input for some samples, whose other inputs are given.

        Raises:
            AdapterError: It fills the shape of another input, and none has one that it may have.
        """
        if not self.fills:
            return np.repeat(self.value[None], samples, axis=0)
        shape = next((array.shape for array in group.values() if self.spec.accepts(array.shape)), None)
        if shape is None:
            raise AdapterError(
                f"input {self.spec} has no length of its own and none of another input; "
                f"give one sample as an .npy file"
            )
        return np.full(shape, self.value)


def constant_inputs(values: Mapping[str, Any], specs: Sequence[InputSpec]) -> dict[str, Constant]:
    """What inputs are fixed to, in their types.

    A number fills its input; as many numbers as a sample has take its shape.

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
    return {name: _constant(np.asarray(value), by_name[name]) for name, value in values.items()}


def with_constants(batch: Batch, constants: Mapping[str, Constant]) -> Batch:
    """The samples, each with the constant inputs beside it.

    Raises:
        AdapterError: See `Constant.beside`.
    """
    if not constants:
        return batch
    sizes = zip(batch.groups, batch.sizes, strict=True)
    return Batch(
        [
            {**group, **{name: constant.beside(group, size) for name, constant in constants.items()}}
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


def _constant(value: np.ndarray, spec: InputSpec) -> Constant:
    if value.ndim == 0 and None in spec.shape[1:]:
        return Constant(spec=spec, value=_typed(value, spec), fills=True)
    return Constant(spec=spec, value=_typed(_shaped(value, spec), spec))


def _shaped(value: np.ndarray, spec: InputSpec) -> np.ndarray:
    """A value in the shape of one sample."""
    dims = spec.shape[1:]
    known = tuple(dim for dim in dims if dim is not None)
    if spec.accepts((1, *value.shape)):
        return value
    if spec.accepts(value.shape) and len(value) == 1:
        single: np.ndarray = value[0]
        return single
    if value.ndim == 0:
        return np.full(known, value)
    if len(known) == len(dims) and value.size == int(np.prod(known)):
        return value.reshape(known)
    raise AdapterError(
        f"input {spec} cannot be fixed to an array of shape {value.shape}; "
        f"give one sample, as an .npy file where it has several axes"
    )


def _typed(value: np.ndarray, spec: InputSpec) -> np.ndarray:
    dtype = np.dtype(np.float32 if spec.dtype in FLOATING else spec.dtype)
    if value.dtype.kind not in "biuf" or dtype.kind not in "biuf":
        raise AdapterError(f"input {spec} cannot be fixed to {value.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        cast = value.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast, value):
        raise AdapterError(f"input {spec} cannot be fixed to {value.ravel()[0]}: its type is another")
    return np.ascontiguousarray(cast) if cast.ndim else cast
