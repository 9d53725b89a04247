"""State dicts from files, without running anything that is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch.shards import INDEX, read_index, refuse_link_out
from lampq.adapters.torch.unpickling import load_pickle
from lampq.core.values.errors import AdapterError, MissingExtraError
from lampq.core.values.messages import listed, reason

State = dict[str, torch.Tensor]

_IN_FOLDERS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
# Where training scripts keep the weights among other things, likeliest first.
_NESTS = (
    "state_dict", "model_state_dict", "model", "module", "model_state", "net", "network", "params", "weights",
    "model_ema", "state_dict_ema", "ema_state_dict", "ema",
)  # fmt: skip
# Dicts within dicts that are looked through.
_DEEPEST = 4
_LONGEST_NAME = 500
# The header is JSON, and takes some twenty times its size when read.
_LARGEST_HEADER = 8 << 20


def load_state(path: Path) -> State:
    """The tensors of a checkpoint by name, on the CPU.

    Args:
        path: .safetensors, .pth, .pt, .bin or .ckpt, an index of shards (.index.json), or a folder of these.

    Raises:
        AdapterError: It is missing, damaged, holds no tensors, or would run code when unpickled.
    """
    path = Path(path)
    if path.is_dir():
        file = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
        if file is None:
            raise AdapterError(f"weights {path}: the folder holds none of {', '.join(_IN_FOLDERS)}")
        refuse_link_out(file)
        path = file
    if not path.is_file():
        raise AdapterError(f"weights {path}: no such file")
    if path.name.endswith(INDEX):
        return _load_shards(path)
    return load_safetensors(path) if path.suffix == ".safetensors" else _unnest(load_pickle(path), path)


def load_safetensors(path: Path) -> State:
    """Tensors of a .safetensors file.

    Raises:
        AdapterError: It is damaged or no such file.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as err:
        raise MissingExtraError("safetensors", "torch", err) from err
    try:
        check_header(path)
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as err:
        raise AdapterError(f"weights {path}: no valid safetensors file ({reason(err)})") from err


def check_header(path: Path) -> None:
    """Refuse a .safetensors file whose header is longer than 8 MiB, some 60,000 tensors.

    Raises:
        AdapterError: It is.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _LARGEST_HEADER:
        raise AdapterError(
            f"weights {path}: no valid safetensors file (a header of {length} bytes, at most {_LARGEST_HEADER})"
        )


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """The files behind a checkpoint's path."""
    if path.is_dir():
        return tuple(sorted((*path.glob("*.safetensors"), *path.glob("*.bin"))))
    if path.name.endswith(INDEX):
        return tuple(sorted(path.parent.glob(f"*{Path(path.name.removesuffix(INDEX)).suffix}")))
    return (path,)


def _load_shards(path: Path) -> State:
    places, shards = read_index(path)
    state: State = {}
    for shard in shards:
        state.update(load_state(shard))
    missing = sorted(set(places) - set(state))
    if missing:
        raise AdapterError(
            f"index {path}: {len(missing)} tensors are in no shard, first {listed(missing, most=1)}"
        )
    return state


def _unnest(content: Any, path: Path, depth: int = _DEEPEST) -> State:
    """The state dict within a checkpoint that holds an optimizer, an epoch and so on as well."""
    if isinstance(content, Mapping) and depth:
        tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
        nested = {k: v for k, v in content.items() if isinstance(k, str) and _has_tensors(v)}
        for name in _NESTS:
            if name in nested and not tensors:
                return _unnest(nested[name], path, depth - 1)
        if tensors:
            _refuse_strange(tensors, path)
            return tensors
        if len(nested) == 1:
            return _unnest(next(iter(nested.values())), path, depth - 1)
        if nested:
            raise AdapterError(
                f"weights {path}: tensors are under each of {listed(sorted(nested), most=20)}; "
                f"save the one you mean alone"
            )
    raise AdapterError(f"weights {path}: holds no state dict but {_describe(content)}")


def _refuse_strange(tensors: State, path: Path) -> None:
    """Names that no module has, and tensors that are no plain array of numbers."""
    for name, tensor in tensors.items():
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise AdapterError(f"weights {path}: {listed([name])} is no name of a weight; refused")
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise AdapterError(
                f"weights {path}: {name} is a {tensor.layout} tensor on {tensor.device} "
                f"({tensor.dtype}); store plain float tensors"
            )


def _has_tensors(content: Any) -> bool:
    """Whether a dict, or one within it, holds a tensor; each is looked at once, however often it occurs."""
    level, seen = [content], set[int]()
    for _ in range(_DEEPEST):
        dicts = {id(each): each for each in level if isinstance(each, Mapping) and id(each) not in seen}
        seen.update(dicts)
        level = [value for each in dicts.values() for value in each.values()]
        if any(isinstance(value, torch.Tensor) for value in level):
            return True
    return False


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict of {listed([k for k in content if isinstance(k, str)], most=6) or 'nothing'}"
    return f"a {type(content).__name__}"
