"""What a Hugging Face folder may ask for, checked before transformers reads any of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch.checkpoint import check_header
from lampq.adapters.torch.shards import INDEX, read_index, refuse_link_out
from lampq.adapters.torch.unpickling import check_pickle
from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.files import read_json
from lampq.core.values.messages import listed, reason

_LARGEST_CONFIG = 8 << 20
_DEEPEST = 32
# Settings that say how often something is built, one module after the other.
_COUNTS = re.compile(r"(?:^|_)(?:layers?|depths?|blocks?|stages?|repeats?|experts?|cells?)(?:_|$)")
_MOST_LAYERS, _FEWEST = 4096, 64
_MOST_LABELS, _LARGEST = 1_000_000, 1 << 31
# A byte of a file holds 8 weights at most.
_WEIGHTS_A_BYTE, _SPARE, _LARGEST_BUFFERS = 8, 1 << 20, 1 << 28
_KERNELS = re.compile(r"_?(?:attn|experts)_implementation(?:_internal)?")


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files of a folder that hold weights."""
    return tuple(sorted((*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin"))))


def read_config(path: Path) -> dict[str, Any]:
    """The folder's config.json, once everything in the folder has been checked that transformers would read.

    Raises:
        AdapterError: Something there asks to run code, lies outside the folder, or is beyond all sizes.
    """
    source = path / "config.json"
    refuse_link_out(source)
    if source.stat().st_size > _LARGEST_CONFIG:
        raise AdapterError(f"{source}: larger than {_LARGEST_CONFIG >> 20} MiB; refused")
    try:
        config = read_json(source, "model configuration")
    except LampqError as err:
        raise AdapterError(str(err)) from err
    check_config(source, config, most_layers=_most_layers(path))
    return config


def check_config(source: Path, config: Mapping[str, Any], *, most_layers: int = _MOST_LAYERS) -> None:
    """Refuse a configuration that names code, or sizes that no model has.

    Args:
        source: Where it is from, for messages.
        config: Its content.
        most_layers: Layers, blocks and experts in one place.

    Raises:
        AdapterError: It does.
    """
    for key, value in _settings(source, config):
        if key == "auto_map" and value:
            raise AdapterError(
                f"{source.parent}: config.json asks to run code of its own (auto_map); refused, it is never run"
            )
        if key == "transformers_weights":
            raise AdapterError(
                f"{source}: names a file of weights of its own ({key}); name it model.safetensors"
            )
        if key == "quant_method" and value != "compressed-tensors":
            raise AdapterError(
                f"{source}: is quantized by {str(value)[:40]}; compressed-tensors alone is read"
            )
        if _KERNELS.fullmatch(key) and "/" in json.dumps(value):
            raise AdapterError(f"{source}: {key} names code to download; refused. Take the line out")
        _check_size(source, key, value, most_layers)


def check_model(path: Path, model: torch.nn.Module) -> None:
    """Refuse a model, built without memory, that is larger than its files could be.

    Raises:
        AdapterError: It is.
    """
    stored = sum(file.stat().st_size for file in weight_files(path))
    weights = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() for buffer in model.buffers())
    if weights > _WEIGHTS_A_BYTE * stored + _SPARE or buffers > _LARGEST_BUFFERS + _WEIGHTS_A_BYTE * stored:
        raise AdapterError(
            f"{path}: config.json asks for {weights + buffers:,} numbers, the files hold {stored:,} bytes; "
            f"correct the sizes there"
        )


def _most_layers(path: Path) -> int:
    """Check the files of weights; the layers that they can be for, which have a tensor each."""
    if (path / "adapter_config.json").exists():
        raise AdapterError(f"{path}: is an adapter of another model; merge it into that model first")
    shards = [shard for index in sorted(path.glob(f"*{INDEX}")) for shard in read_index(index)[1]]
    files = sorted({*weight_files(path), *shards})
    if not files:
        raise AdapterError(f"{path}: holds no weights; put model.safetensors there")
    tensors, counted = 0, False
    for file in files:
        refuse_link_out(file)
        if file.suffix == ".safetensors":
            tensors, counted = tensors + _tensor_count(file), True
        else:
            check_pickle(file)
    return min(_MOST_LAYERS, max(_FEWEST, tensors)) if counted else _MOST_LAYERS


def _tensor_count(file: Path) -> int:
    check_header(file)
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        try:
            return len(json.loads(content.read(length)))
        except (ValueError, TypeError, RecursionError) as err:
            raise AdapterError(f"{file}: no valid safetensors file ({reason(err)})") from err


def _settings(source: Path, node: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        raise AdapterError(f"{source}: nested deeper than {_DEEPEST}; refused")
    yield key, node
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _settings(source, value, str(name), depth + 1)
    elif isinstance(node, list):
        for value in node:
            if isinstance(value, Mapping | list):
                yield from _settings(source, value, key, depth + 1)


def _check_size(source: Path, key: str, value: Any, most_layers: int) -> None:
    values = value if isinstance(value, list) else [value]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if not numbers:
        return
    limit: float = _LARGEST
    if _COUNTS.search(key):
        numbers, limit = [sum(map(abs, numbers))], most_layers
    elif key == "num_labels":
        limit = _MOST_LABELS
    largest = max(numbers, key=abs)
    if isinstance(largest, int) and abs(largest) > limit:
        raise AdapterError(
            f"{source}: {listed([key])} is {str(largest)[:40]}, more than {int(limit):,}"
            f"{' for weights of so many tensors' if limit == most_layers else ''}; correct it"
        )
