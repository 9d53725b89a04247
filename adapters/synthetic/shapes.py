"""Shapes of samples for inputs that take any length."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.messages import listed


def definite(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> list[InputSpec]:
    """Inputs with the shapes that were asked for.

    Args:
        specs: The inputs that samples are made for.
        shapes: Shape of one sample by name; an empty name is the only input.

    Raises:
        AdapterError: No input is so called, or it takes no such shape.
    """
    wanted = dict(shapes)
    if "" in wanted and len(specs) == 1:
        wanted.setdefault(specs[0].name, wanted.pop(""))
    unknown = [name for name in wanted if name not in {spec.name for spec in specs}]
    if unknown:
        what = f"no free input is called {unknown[0]!r}" if unknown[0] else "several inputs have a shape"
        names = listed([spec.name for spec in specs])
        raise AdapterError(f"synthetic data: {what}; say --input-shape NAME=SHAPE for {names}")
    return [_with_shape(spec, wanted[spec.name]) if spec.name in wanted else spec for spec in specs]


def lengths_of(spec: InputSpec) -> tuple[int, ...]:
    """The shape of one sample.

    Raises:
        AdapterError: An axis is of any length; says how to choose one.
    """
    sides = tuple(side for side in spec.shape[1:] if side is not None)
    if len(sides) < len(spec.shape) - 1:
        pattern = "x".join("N" if side is None else str(side) for side in spec.shape[1:])
        raise AdapterError(
            f"synthetic data: input {spec} takes any length; say --input-shape {spec.name}={pattern} with a number "
            "for N, or give an .npz of arrays"
        )
    return sides


def _with_shape(spec: InputSpec, shape: Sequence[int]) -> InputSpec:
    if not spec.any_rank and not spec.accepts((1, *shape)):
        asked = "x".join(map(str, shape))
        raise AdapterError(f"synthetic data: input {spec} takes no samples of shape {asked}")
    first = spec.shape[0] if spec.shape else None
    return dataclasses.replace(spec, shape=(first, *shape), any_rank=False)
