"""Class logits out of whatever a module returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lampq.core.values.errors import AdapterError

_NAMES = ("logits", "last_hidden_state")


def to_logits(output: Any) -> torch.Tensor:
    """Logits, shape (samples, classes).

    A dict or output object gives `logits`, else `last_hidden_state`, else its first tensor; a tuple gives
    its first tensor. Outputs per position, (samples, positions, features) or (samples, channels, height,
    width), are averaged over positions: what is left tells one prediction per sample from another.

    Raises:
        AdapterError: There is no tensor, or it has no axis of classes.
    """
    tensor = _find(output)
    if tensor is None:
        raise AdapterError(
            f"the model returns a {type(output).__name__} without a tensor of logits; wrap it so that it does"
        )
    if not tensor.is_floating_point():
        raise AdapterError(f"the model returns {tensor.dtype} values; LampQ needs logits before argmax")
    if tensor.dim() == 3:
        return tensor.mean(dim=1)
    if tensor.dim() > 3:
        return tensor.flatten(2).mean(dim=2)
    if tensor.dim() < 2 or tensor.shape[1] < 2:
        raise AdapterError(
            f"the model returns outputs of shape {tuple(tensor.shape)}; "
            f"LampQ needs logits of two or more classes"
        )
    return tensor


def _find(output: Any) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    for name in _NAMES:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, torch.Tensor):
            return found
    members = (
        output.values()
        if isinstance(output, Mapping)
        else output
        if isinstance(output, (list, tuple))
        else ()
    )
    return next((found for member in members if (found := _find(member)) is not None), None)
