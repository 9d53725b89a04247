"""The quantized weights of Hugging Face folders in compressed-tensors form, and of files of lampq."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from lampq.adapters.kinds import infer_kind
from lampq.adapters.torch import hugging_face, packed, packed_records
from lampq.core.values import packing
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.stored import StoredWeight

_SCALE_BYTES = 4
_Stored = Mapping[str, tuple[int, int | None]]


def stored(path: str | Path) -> tuple[StoredWeight, ...]:
    """The quantized weights of a folder or file; none in files of other kinds, which hold floats.

    Raises:
        AdapterError: It is damaged.
    """
    path = Path(path)
    if path.is_dir():
        loaded = hugging_face.load(path)
        return tuple(_records(path, loaded.module.state_dict(), loaded.stored))
    if path.is_file() and packed.is_packed(path):
        file = packed.read(path)
        state = file.state()
        return tuple(_of_record(path, record, state[name]) for name, record in file.records.items())
    return ()


def _records(path: Path, state: Mapping[str, torch.Tensor], widths: _Stored) -> Iterator[StoredWeight]:
    for name, (bits, activation) in widths.items():
        tensor = state.get(f"{name}.weight", state.get(name))
        if tensor is None:
            raise AdapterError(f"{path}: the configuration names {name}, which holds no weight")
        layer = _layer(path, name, tensor, channel_axis=0)
        yield StoredWeight(
            layer=layer,
            weight_bits=bits,
            activation_bits=activation,
            payload_bytes=packing.payload_bytes(layer.size, bits) + _SCALE_BYTES * layer.channels,
            container="bitplane",
        )


def _of_record(path: Path, record: packed_records.Record, tensor: torch.Tensor) -> StoredWeight:
    """A weight of a file of lampq, which says how it is stored."""
    return StoredWeight(
        layer=_layer(path, record.layer, tensor, channel_axis=record.channel_axis),
        weight_bits=record.bits,
        activation_bits=record.activation_bits,
        payload_bytes=record.payload_bytes,
        container=record.container,
    )


def _layer(path: Path, name: str, tensor: torch.Tensor, *, channel_axis: int) -> Layer:
    values = tensor.float().cpu().numpy()
    try:
        kind = infer_kind(name, convolution=values.ndim > 2)
        return Layer.from_weight(name, values, kind=kind, channel_axis=channel_axis)
    except RecordError as err:
        raise AdapterError(f"{path}: {err}") from err
