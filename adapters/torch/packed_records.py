"""What a packed file says of its weights: how each is stored, and how long that is (`adapters.torch.packed`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from lampq.core.values import packing
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.blocks import check_block, scale_count
from lampq.core.values.fitted import Fitted
from lampq.core.values.weight_form import WEIGHT_FORMS

KEY = "lampq"
# Version 2 has quantizers of inputs and sites; files without them stay as older readers know them.
VERSIONS = (1, 2)
CODES, SCALE = ".codes", ".scale"
_USUAL: dict[str, Any] = {
    "container": "bitplane",
    "channel_axis": 0,
    "block": None,
    "activation_bits": None,
    "activation_range": None,
    "quantizer": None,
    "form": None,
}
_TYPES = {"uint8": "U8", "int8": "I8", "float16": "F16", "float32": "F32", "int32": "I32", "int64": "I64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How one weight is stored.

    Attributes:
        layer: Layer name.
        bits: Width.
        step: Distance of neighbouring integers: value = scale * (step * code - offset).
        offset: Minus the smallest integer.
        shape: Shape of the weight.
        channel_axis: Axis with one scale per entry.
        block: Weights that share a scale where the shape allows it (`core.values.blocks`), or None.
        container: `bitplane` (exactly `bits` bits a code) or `int8` (one byte).
        activation_bits: Width of the layer's input, or None.
        activation_range: Its range, or None.
        quantizer: How it is rounded, where that is not told by range or tokens alone.
        form: Name of the form of the weight, where it has one (`core.values.weight_form`): then its parts are in
            `NAME:PART`, and there are no codes and scales.
    """

    layer: str
    bits: int
    step: int
    offset: int
    shape: tuple[int, ...]
    channel_axis: int
    block: int | None = None
    container: str = "bitplane"
    activation_bits: int | None = None
    activation_range: tuple[float, float] | None = None
    quantizer: Fitted | None = None
    form: str | None = None

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def scales(self) -> int:
        """Number of scales."""
        return scale_count(self.shape, self.channel_axis, self.block)

    @property
    def payload_bytes(self) -> int:
        """Bytes of codes and scales, or of the parts."""
        if self.form is not None:
            return WEIGHT_FORMS.get(self.form).payload_bytes(*self.rows, self.bits)
        return payload_bytes(self.size, self.scales, self.bits, self.container)

    @property
    def rows(self) -> tuple[int, int]:
        """Output channels, and weights of each."""
        channels = self.shape[self.channel_axis]
        return channels, self.size // channels

    @property
    def activation_grid(self) -> ActivationGrid | None:
        """Grid of the layer's input, or None where it stays float."""
        if self.activation_bits is None or self.activation_range is None:
            return None
        return ActivationGrid.from_range(*self.activation_range, bits=self.activation_bits)


def metadata(
    records: Mapping[str, Record], origin: Mapping[str, Any], sites: Mapping[str, Fitted] | None = None
) -> dict[str, str]:
    """What the file says of itself."""
    weights = {name: _entry(record) for name, record in records.items()}
    newer = bool(sites) or any(record.quantizer is not None for record in records.values())
    content: dict[str, Any] = {
        "version": VERSIONS[newer],
        "origin": dict(origin),
        "weights": weights,
    }
    if sites:
        content["sites"] = {name: fitted.to_json() for name, fitted in sites.items()}
    return {"format": "pt", KEY: json.dumps(content, separators=(",", ":"))}


def _entry(record: Record) -> dict[str, Any]:
    # What is as usual goes without saying: in a small model the header is a noticeable part of the file.
    quantizer = None if record.quantizer is None else record.quantizer.to_json()
    entry = asdict(replace(record, quantizer=None)) | {"quantizer": quantizer}
    return {k: v for k, v in entry.items() if v != _USUAL.get(k)}


def record_bytes(record: Record) -> int:
    """Bytes that a record takes in a file, quoted as it is there, without its parameter's name."""
    return len(json.dumps(json.dumps(_entry(record), separators=(",", ":")))) - 2


def header_bytes(
    records: Mapping[str, Record], origin: Mapping[str, Any], rest: Mapping[str, torch.Tensor]
) -> int:
    """Bytes that the file spends on names and on what it says of itself, at most.

    Args:
        records: Parameter -> how it is stored; widths and ranges matter only by their digits.
        origin: What the model was read from.
        rest: The tensors that stay as they are.
    """
    kinds = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
    places = {name: (kinds.get(t.dtype, "BOOL"), list(t.shape), t.nbytes) for name, t in rest.items()}
    for name, record in records.items():
        places |= _places(name, record)
    header: dict[str, Any] = {"__metadata__": metadata(records, origin)}
    end = sum(size for _, _, size in places.values())
    for name, (dtype, shape, _) in places.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end]}
    length = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + -(-length // 8) * 8


def _places(name: str, record: Record) -> dict[str, tuple[str, list[int], int]]:
    """Names, types, shapes and bytes of what is stored of a weight, at the width that takes the most to describe."""
    if record.form is None:
        scales = record.scales
        return {
            name + CODES: ("U8", [record.size], record.size),
            name + SCALE: ("F32", [scales], 4 * scales),
        }
    form = WEIGHT_FORMS.get(record.form)
    every = [
        {
            part_name(name, part): (_TYPES[np.dtype(kind).name], list(shape), 8 * record.size)
            for part, (shape, kind) in form.parts(*record.rows, bits).items()
        }
        for bits in range(1, 9)
    ]
    return max(every, key=lambda places: len(json.dumps(places)))


def part_name(name: str, part: str) -> str:
    """What a part of a weight of some form is called."""
    return f"{name}:{part}"


def stored_bits(records: Mapping[str, Record]) -> dict[str, tuple[int, int | None]]:
    """Layer -> widths of its weights and of its input."""
    return {record.layer: (record.bits, record.activation_bits) for record in records.values()}


def payload_bytes(size: int, scales: int, bits: int, container: str) -> int:
    """Bytes of codes and scales."""
    return (size if container == "int8" else packing.payload_bytes(size, bits)) + 4 * scales


def record_of(data: Mapping[str, Any]) -> Record:
    """A record as a file has it."""
    data = _USUAL | dict(data)
    spread = data["activation_range"]
    return Record(
        layer=str(data["layer"]),
        bits=int(data["bits"]),
        step=int(data["step"]),
        offset=int(data["offset"]),
        shape=tuple(int(d) for d in data["shape"]),
        channel_axis=int(data["channel_axis"]),
        block=check_block(None if data["block"] is None else int(data["block"])),
        container=str(data["container"]),
        activation_bits=None if data["activation_bits"] is None else int(data["activation_bits"]),
        activation_range=None if spread is None else (float(spread[0]), float(spread[1])),
        quantizer=None if data["quantizer"] is None else Fitted.from_json(data["quantizer"]),
        form=None if data["form"] is None else str(data["form"]),
    )
