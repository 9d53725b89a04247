"""The inputs of a graph: what must be fed, what is fixed, and made-up values that a graph can be run with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx.batches import Shapes
from lampq.adapters.onnx.flow import Flow
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec

# Of an input that is only made up.
_MOST_ENTRIES = 1 << 28
# Samples of noise.
_SAMPLES = 2
# Lengths to try along axes that the model leaves open: sides of an image, any other axis, channels.
_LENGTHS = ((224, 16, 3), (224, 16, 1), (64, 64, 3), (32, 8, 1))
# Axes to try where the model says nothing of them.
_RANKS = (4, 2, 3, 5)
_STEPS = ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Slice", "Transpose")


def describe(flow: Flow) -> tuple[InputSpec, ...]:
    """The inputs of a graph, fixed ones included, samples first whatever axis the graph has them along."""
    axes = sample_axes(flow)
    return tuple(_spec(value, axes.get(value.name or "", 0)) for value in flow.inputs)


def sample_axes(flow: Flow) -> dict[str, int]:
    """Where the samples of an input lie, by name, of those inputs that do not have them first.

    States of recurrent layers are such: (2, samples, width). Their first axis has a length of its own where other
    inputs have one that is free, or 1; their samples are along the only axis that is as long as theirs. Where no axis
    is, (2, 1, width) is the state of one sample: the other inputs' axis is free in name alone.
    """
    samples = _length_of_batch(flow)
    axes = {value.name or "": _moved(_sides(value), samples) for value in flow.inputs}
    return {name: axis for name, axis in axes.items() if axis}


def is_next_state(flow: Flow, value: ir.Value) -> bool:
    """Whether an output is the state after a step: shaped or called like an input with its samples elsewhere."""
    states = {state.name or "": state for state in flow.inputs if state.name in sample_axes(flow)}
    name = (value.name or "").lower()
    return any(name.startswith(each.lower()) or _sides(value) == _sides(states[each]) for each in states)


def _length_of_batch(flow: Flow) -> int | str | None:
    """The length of the axis of samples, free or 1; 0 where inputs have another."""
    leading = [sides[0] for sides in map(_sides, flow.inputs) if sides]
    free = [side for side in leading if not isinstance(side, int)]
    return free[0] if free else 1 if 1 in leading else 0


def _moved(sides: Sequence[int | str | None], samples: int | str | None) -> int:
    """The axis of the samples of an input with such sides, where the first is not it; else 0."""
    if not sides or not isinstance(sides[0], int) or sides[0] < 2 or samples == 0:
        return 0
    along = [axis for axis, side in enumerate(sides) if axis and _as_long(side, samples)]
    if not along and not isinstance(samples, int) and sides[1:-1] == [1]:
        return 1
    return along[0] if len(along) == 1 else 0


def laid_out(arrays: Mapping[str, np.ndarray], axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Arrays with samples first as the graph has them; `axes` is of `sample_axes`."""
    return {
        name: np.ascontiguousarray(np.moveaxis(array, 0, axes[name])) if name in axes else array
        for name, array in arrays.items()
    }


def samples_first(arrays: Mapping[str, np.ndarray], axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The inverse of `laid_out`; nothing is copied."""
    return {name: np.moveaxis(array, axes.get(name, 0), 0) for name, array in arrays.items()}


def _sides(value: ir.Value) -> list[int | str | None]:
    """Lengths of the axes of an input: a number, the name of one that is free, or None."""
    dims = () if value.shape is None else value.shape.dims
    return [d if isinstance(d, int) and d > 0 else getattr(d, "value", None) for d in dims]


def _samples_first(value: ir.Value, axis: int) -> list[int | str | None]:
    sides = _sides(value)
    return [sides[axis], *sides[:axis], *sides[axis + 1 :]] if sides else []


def _as_long(side: int | str | None, samples: int | str | None) -> bool:
    """Whether an axis may be that of the samples of other inputs; free axes without a name may."""
    return side == samples or (side is None and not isinstance(samples, int))


def fix(specs: Sequence[InputSpec], constants: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """The values of inputs that are not fed, of the inputs' types.

    Args:
        specs: All inputs.
        constants: Values by name: of the input's shape, or of that of one sample, or a number for all of it; as
            JSON too.

    Raises:
        AdapterError: No input is so called, or a value does not fit it.
    """
    known = {spec.name: spec for spec in specs}
    fixed = {}
    for name, value in (constants or {}).items():
        if name not in known:
            raise AdapterError(f"has no input {name!r} to fix; its inputs are {', '.join(known) or 'none'}")
        spec = known[name]
        try:
            fixed[name] = np.asarray(json.loads(value) if isinstance(value, str) else value).astype(
                spec.dtype
            )
        except (TypeError, ValueError) as err:
            raise AdapterError(f"the value of input {name} is no {spec.dtype}: {value!r}") from err
        if not spec.any_rank and fixed[name].ndim > len(spec.shape):
            raise AdapterError(f"input {spec} cannot be a value of shape {fixed[name].shape}")
    return fixed


def constant_feeds(
    specs: Sequence[InputSpec], constants: Mapping[str, np.ndarray], samples: int
) -> dict[str, np.ndarray]:
    """The fixed inputs of a run of some samples."""
    known = {spec.name: spec for spec in specs}
    return {name: _spread(value, known[name], samples) for name, value in constants.items()}


def blank(specs: Sequence[InputSpec], shapes: Shapes, samples: int) -> dict[str, np.ndarray]:
    """Samples of zeros, and of ones where an input is a mask or a length.

    Raises:
        AdapterError: They would not fit in memory.
    """
    sides = dict(shapes)
    for name, shape in shapes:
        if samples * math.prod(shape) > _MOST_ENTRIES:
            raise AdapterError(
                f"{samples} samples of input {name} have {samples * math.prod(shape):,} entries"
            )
    return {
        spec.name: np.full((samples, *sides[spec.name]), _filling(spec), dtype=spec.dtype) for spec in specs
    }


def noise(
    flow: Flow, specs: Sequence[InputSpec], constants: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Feeds that a graph may take, samples first, the likeliest first.

    Normal numbers; indices of the tables they are looked up in; masks of ones. Open axes are as long as an image
    or a short text; axes of one name are equally long.

    Args:
        flow: The graph.
        specs: All its inputs.
        constants: Values of those that are fixed.
    """
    free = [spec for spec in specs if spec.name not in constants]
    values = {value.name: value for value in flow.inputs}
    rows = {spec.name: table_rows(flow, values[spec.name]) for spec in free}
    axes = sample_axes(flow)
    symbols = {spec.name: _samples_first(values[spec.name], axes.get(spec.name, 0)) for spec in free}
    fixed = next((spec.batch for spec in free if spec.batch is not None), None)
    # Some exports say that the batch is free and mean one sample.
    counts = (fixed,) if fixed is not None else (_SAMPLES, 1)
    ranks = _RANKS if any(spec.any_rank for spec in free) else _RANKS[:1]
    for rank in ranks:
        for lengths in _LENGTHS:
            for samples in counts:
                generator = np.random.default_rng(0)
                sides: dict[str, int] = {}
                feeds = {}
                for spec in free:
                    shape = _noise_shape(symbols[spec.name], spec, samples, rank, lengths, sides)
                    feeds[spec.name] = _random(spec, shape, rows[spec.name], generator)
                yield feeds | constant_feeds(specs, constants, samples)
            if not any(_is_open(spec) for spec in free):
                return


def table_rows(flow: Flow, value: ir.Value) -> int | None:
    """Rows of the smallest table that an input of integers is looked up in; None where there is none."""
    if value.dtype is None or value.dtype.is_floating_point():
        return None
    lengths, stack, seen = [], [value], set()
    while stack:
        for node, index in stack.pop().uses():
            if node in seen:
                continue
            table = node.inputs[0]
            if node.op_type == "Gather" and index == 1 and table is not None and table.shape is not None:
                axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
                length = table.shape[axis]
                if isinstance(length, int) and table not in flow.active:
                    lengths.append(length)
            elif node.op_type in _STEPS and index == 0:
                seen.add(node)
                stack += node.outputs
    return min(lengths, default=None)


def _spec(value: ir.Value, axis: int) -> InputSpec:
    shape = tuple(side if isinstance(side, int) else None for side in _samples_first(value, axis))
    # Sequences and texts are described as far as an array can be.
    tensor = isinstance(value.type, ir.TensorType)
    dtype = value.dtype.numpy().name if tensor and value.dtype is not None else "float32"
    return InputSpec(name=value.name or "", shape=shape, dtype=dtype, any_rank=value.shape is None)


def _spread(value: np.ndarray, spec: InputSpec, samples: int) -> np.ndarray:
    if not spec.shape:
        return value
    rank, batch = len(spec.shape), spec.batch or samples
    if value.ndim == rank and len(value) != 1:
        return value
    sample = value[0] if value.ndim == rank else value
    # What one sample leaves out is as long as the input says, or 1.
    missing = rank - 1 - sample.ndim
    sides = (*((d or 1) for d in spec.shape[1 : 1 + missing]), *sample.shape)
    return np.ascontiguousarray(np.broadcast_to(sample, (batch, *sides)))


def _is_mask(spec: InputSpec) -> bool:
    name = spec.name.lower()
    return "mask" in name or "len" in name or spec.dtype == "bool"


def _filling(spec: InputSpec) -> int:
    return 1 if _is_mask(spec) else 0


def _is_open(spec: InputSpec) -> bool:
    return spec.any_rank or any(dim is None for dim in spec.shape[1:])


def _noise_shape(
    symbols: Sequence[int | str | None],
    spec: InputSpec,
    samples: int,
    rank: int,
    lengths: tuple[int, int, int],
    sides: dict[str, int],
) -> tuple[int, ...]:
    image, length, channels = lengths
    dims = spec.shape
    if spec.any_rank:
        dims = (None,) * (rank if spec.dtype.startswith("float") else 2)
    elif not dims:
        return ()
    shape = [spec.batch or samples]
    for axis in range(1, len(dims)):
        usual = length if len(dims) != 4 else image
        if len(dims) == 4 and axis == 1 and None in dims[2:]:
            usual = channels
        symbol = symbols[axis] if symbols else None
        if dims[axis] is None and isinstance(symbol, str) and symbol:
            usual = sides.setdefault(symbol, usual)
        shape.append(dims[axis] or usual)
    return tuple(shape)


def _random(
    spec: InputSpec, shape: tuple[int, ...], rows: int | None, generator: np.random.Generator
) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if _is_mask(spec):
        return np.ones(shape, dtype)
    if dtype.kind in "iu":
        return generator.integers(0, 2 if rows is None else rows, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
