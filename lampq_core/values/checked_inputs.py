"""Inputs that fit their descriptions, whatever form they come in; what does not fit is refused in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec


def checked_inputs(batch: BatchLike, specs: Sequence[InputSpec], name: str) -> Batch:
    """The batch with every array of its input's type.

    Args:
        batch: Samples first; a lone array is that of the only input, whatever it is called.
        specs: The inputs of the model.
        name: The model, for messages.

    Raises:
        AdapterError: An input is missing or unknown, there are no samples, or a shape or type does not fit.
    """
    wanted = [spec.name for spec in specs]
    if isinstance(batch, np.ndarray | list | tuple):
        if len(specs) != 1:
            raise AdapterError(f"{name} takes {_listed(specs)}: give arrays by name")
        batch = np.asarray(batch)
        if not batch.ndim or not len(batch):
            raise AdapterError(f"{name} takes {_listed(specs)}, not a batch of shape {batch.shape}")
    batch = Batch.of(batch, name=wanted[0] if wanted else "x")
    if len(specs) == 1 and len(batch.names) == 1 and batch.names[0] != wanted[0]:
        batch = Batch([{wanted[0]: next(iter(group.values()))} for group in batch.groups])
    missing = [n for n in wanted if n not in batch.names]
    unknown = [n for n in batch.names if n not in wanted]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"also has {', '.join(unknown)}"
        raise AdapterError(f"{name} takes {_listed(specs)}; the batch {what}")
    return Batch([{spec.name: _fit(group[spec.name], spec, name) for spec in specs} for group in batch])


def _fit(array: np.ndarray, spec: InputSpec, name: str) -> np.ndarray:
    if not spec.shape and not spec.any_rank:
        raise AdapterError(
            f"{name}: input {spec.name} is one number for all samples; fix it: --input {spec.name}=VALUE"
        )
    if not spec.accepts(array.shape):
        raise AdapterError(
            f"{name} takes {spec}, not a batch of shape {tuple(array.shape)}; check the image size and the layout"
        )
    wanted = np.dtype(spec.dtype)
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise AdapterError(f"{name} takes {spec}, not {array.dtype}; convert the data")
    fitted = array.astype(wanted, copy=False)
    if wanted.kind in "iu" and not np.array_equal(fitted, array):
        raise AdapterError(f"{name} takes {spec}, and the batch holds numbers beyond that")
    return fitted


def _listed(specs: Sequence[InputSpec]) -> str:
    return ", ".join(str(spec) for spec in specs) or "no inputs"
