"""Fitting a checkpoint's names to a module's, and saying what is wrong where they do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from lampq.adapters.torch.checkpoint import State
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed

# Names in a message, of each kind.
_SHOWN = 6
# Buffers that modules compute themselves and that come and go between versions of libraries.
_COMPUTED = (
    "num_batches_tracked",
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
    "position_ids",
)


def fill(module: torch.nn.Module, state: State, source: Path) -> None:
    """Load a state dict into a module; every weight must be there and fit.

    Args:
        module: The module; changed.
        state: Tensors by name.
        source: Where they are from, for messages.

    Raises:
        AdapterError: Names or shapes do not fit; lists the first of them and the likeliest remedy.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    state = renamed(state, expected)
    missing = [name for name in expected if name not in state and not name.endswith(_COMPUTED)]
    unexpected = [name for name in state if name not in expected and not name.endswith(_COMPUTED)]
    misshapen = [n for n, t in state.items() if n in expected and tuple(t.shape) != expected[n]]
    # A tied weight may be stored under one of its names only.
    missing = [name for name in missing if not _tied(module, name, state)]
    if missing or unexpected or misshapen:
        raise AdapterError(_report(source, expected, state, missing, unexpected, misshapen))
    module.load_state_dict({n: t for n, t in state.items() if n in expected}, strict=False)


def renamed(state: State, expected: Collection[str]) -> State:
    """The state dict under the names that the module knows.

    Wrappers put a prefix in front of every name (`module.`, `_orig_mod.`, `model.`), or the module itself
    wraps what was saved. The prefix that makes most names fit is taken off, or put on, where it helps.
    """
    hits = sum(name in expected for name in state)
    prefixes, wanted = _prefixes(state, expected), _prefixes(expected, set(state))
    for prefix, count in prefixes.most_common(1):
        if count > hits:
            return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    for prefix, count in wanted.most_common(1):
        if count > hits:
            return {prefix + name: tensor for name, tensor in state.items()}
    return state


def _prefixes(names: Collection[str], known: Collection[str]) -> Counter[str]:
    """How often each prefix, taken off a name, leaves a known name."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in known:
                counts[".".join(parts[:cut]) + "."] += 1
    return counts


def _tied(module: torch.nn.Module, name: str, state: State) -> bool:
    every = dict(module.named_parameters(remove_duplicate=False))
    if name not in every:
        return False
    return any(other in state and tensor is every[name] for other, tensor in every.items() if other != name)


def _report(
    source: Path,
    expected: Mapping[str, tuple[int, ...]],
    state: State,
    missing: Sequence[str],
    unexpected: Sequence[str],
    misshapen: Sequence[str],
) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing from the file ({listed(missing, most=_SHOWN)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unknown to the model ({listed(unexpected, most=_SHOWN)})")
    if misshapen:
        shapes = [f"{n} {tuple(state[n].shape)} for {expected[n]}" for n in misshapen]
        parts.append(f"{len(misshapen)} of another shape ({listed(shapes, most=_SHOWN)})")
    remedy = _remedy(expected, state, missing, misshapen)
    return f"weights {source} do not fit the model: {'; '.join(parts)}; {remedy}"


def _remedy(
    expected: Mapping[str, tuple[int, ...]], state: State, missing: Sequence[str], misshapen: Sequence[str]
) -> str:
    hits = len(expected) - len(missing)
    heads = {n.rpartition(".")[0] for n in misshapen if state[n].dim() and expected[n]}
    if len(heads) == 1 and all(state[n].shape[1:] == torch.Size(expected[n][1:]) for n in misshapen):
        name = misshapen[0]
        wanted, built = state[name].shape[0], expected[name][0]
        return f"build the model with {wanted} outputs of {heads.pop()} instead of {built}"
    if misshapen:
        return "build the model in the size that the weights were trained in"
    if not hits:
        return "these are the weights of another architecture, or its names carry a prefix of their own"
    depths = _depths(state), _depths(expected)
    if depths[0] != depths[1]:
        return f"the file has {depths[0]} numbered blocks, the model {depths[1]}: build it as deep as trained"
    if missing:
        return "build the model with the options it was trained with, or name a complete checkpoint"
    return "build the model with the options it was trained with"


def _depths(names: Mapping[str, object]) -> int:
    return len(
        {
            tuple(name.split(".")[: i + 1])
            for name in names
            for i, p in enumerate(name.split("."))
            if p.isdigit()
        }
    )
