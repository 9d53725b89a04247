"""Tensors out of whatever a module returns, by name."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from lampq.core.values.errors import AdapterError

LONE = "output"
"""Name of the only tensor of a module that returns one."""
# What models of transformers return beside their result.
_BESIDE = frozenset(
    {
        *("past_key_values", "hidden_states", "attentions", "cross_attentions", "loss"),
        *("encoder_hidden_states", "encoder_attentions", "decoder_hidden_states", "decoder_attentions"),
        *("reshaped_hidden_states", "image_hidden_states", "vision_hidden_states"),
    }
)


def flatten(output: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of a module's output by name, the same tensor once.

    Members of dictionaries, output objects and dataclasses have their own names, those of tuples `output_0`,
    `output_1`, ...; names of nested ones are joined with dots. Caches, and states and attentions of inner layers,
    are left out.

    Args:
        output: What the module returned.
        name: What to call it; names of members follow it after a dot.

    Example:
        >>> list(flatten({"boxes": torch.ones(1), "scores": [torch.ones(1), torch.zeros(1)]}))
        ['boxes', 'scores.0', 'scores.1']
    """
    members: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for key, tensor in _members(output, name):
        if id(tensor) not in seen:
            members[key] = tensor
            seen.add(id(tensor))
    return members


@contextlib.contextmanager
def captured(module: torch.nn.Module, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Outputs of submodules by name, once the module has run; of those that run several times the last.

    Args:
        module: The module.
        names: Paths of submodules, with the member behind a dot where one returns several tensors.
    """
    inner: dict[str, torch.Tensor] = {}
    handles = []

    def keep(path: str, output: Any) -> None:
        inner.update((name, tensor) for name, tensor in flatten(output, path).items() if name in names)

    for path in dict.fromkeys(owner(module, name) for name in names):
        child = module.get_submodule(path or "")
        handles.append(child.register_forward_hook(lambda _m, _a, output, path=path: keep(path, output)))
    try:
        yield inner
    finally:
        for handle in handles:
            handle.remove()


def owner(module: torch.nn.Module, name: str) -> str | None:
    """Path of the submodule that an inner tensor is an output of, or None."""
    paths = [path for path, _ in module.named_modules() if path]
    return max((p for p in paths if name == p or name.startswith(p + ".")), key=len, default=None)


def sample_rows(output: torch.Tensor, samples: int, name: str, model: str) -> torch.Tensor:
    """An output with one row per sample; that of a model that knows one sample gets the axis.

    Raises:
        AdapterError: It has another number of rows.
    """
    if output.dim() and len(output) == samples:
        return output
    if samples == 1:
        return output.unsqueeze(0)
    raise AdapterError(
        f"{model}: output {name} has shape {tuple(output.shape)} for {samples} samples, not one row for each; "
        f"leave it out with --output {name}=ignore"
    )


def _members(output: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(output, torch.Tensor):
        yield name or LONE, output
        return
    if isinstance(output, Mapping):
        items = [(str(key), value) for key, value in output.items() if str(key) not in _BESIDE]
    elif isinstance(output, tuple | list):
        fields = getattr(output, "_fields", None)
        first = f"{LONE}_" if not name else ""
        items = [(fields[i] if fields else f"{first}{i}", value) for i, value in enumerate(output)]
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        items = [(f.name, getattr(output, f.name)) for f in dataclasses.fields(output)]
        items = [(key, value) for key, value in items if key not in _BESIDE]
    else:
        return
    for key, value in items:
        yield from _members(value, f"{name}.{key}" if name else key)
