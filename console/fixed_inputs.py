"""Inputs that `--input NAME=VALUE` fixes: a number without an axis of samples in the model, others beside the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lampq import adapters
from lampq.adapters.data import parse_constant
from lampq.adapters.formats import format_named

if TYPE_CHECKING:
    import numpy as np

    from lampq.core.measuring.model import Model


def read_fixed(source: str, options: Mapping[str, Any], constants: Sequence[str]) -> Model:
    """A model with those of its inputs fixed that are one number for all samples.

    Args:
        source: What `lampq.read` takes.
        options: What the format's reader takes.
        constants: Values as on the command line, `NAME=VALUE`.

    Raises:
        LampqError: It cannot be read, or a value is of another form.
    """
    values = dict(map(parse_constant, constants))
    model = adapters.read(source, **options)
    lone = [spec.name for spec in model.input_specs if not spec.shape and not spec.any_rank]
    numbers = {name: values[name] for name in lone if name in values}
    if not numbers or adapters.format_of(source).fixed is None:
        return model
    return adapters.read(source, **options, constants=numbers)


def constants_of_data(constants: Sequence[str], model: Model) -> dict[str, np.ndarray]:
    """The values that go beside the samples: those that the model was not read with.

    Raises:
        AdapterError: One is of another form.
    """
    fixed = format_named(model.format).fixed
    known = set() if fixed is None else set(fixed(model))
    return {name: value for name, value in map(parse_constant, constants) if name not in known}
