"""Quantized weights in a safetensors file with exactly b bits each.

Beside the tensors that stay as they are, each quantized weight has its codes (`NAME.codes`, uint8, see
`lampq.core.values.packing`) and one float32 scale per output channel or block of it (`NAME.scale`); what the codes
mean is in the file's metadata. The file is a checkpoint like any other: a factory can be filled from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lampq.adapters.torch.checkpoint import State, check_header
from lampq.core.measuring.encoding import Plain
from lampq.core.measuring.setting import input_rule
from lampq.core.quantizing.formed import Formed, formed_of
from lampq.core.quantizing.quantizer import Quantized, weight_of
from lampq.core.treatments import rule_of
from lampq.core.values import packing
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.blocks import check_block, scale_count
from lampq.core.values.errors import AdapterError, LampqError, MissingExtraError
from lampq.core.values.fitted import Fitted
from lampq.core.values.messages import reason
from lampq.core.values.rounding_kinds import form_of
from lampq.core.values.weight_form import WEIGHT_FORMS

_KEY = "lampq"
# Version 2 has quantizers of inputs and sites; files without them stay as older readers know them.
_VERSIONS = (1, 2)
_CODES, _SCALE = ".codes", ".scale"
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedFile:
    """A file of quantized weights.

    Attributes:
        records: Parameter -> how it is stored.
        origin: What the model was read from: `source` and what its kind needs to be built again.
        weights: Parameter -> its codes and scales, or the parts of its form.
        rest: All other tensors by name.
        sites: Factor of a product -> how it is rounded.
    """

    records: Mapping[str, Record]
    origin: Mapping[str, Any]
    weights: Mapping[str, Plain]
    rest: State
    sites: Mapping[str, Fitted] = field(default_factory=dict)

    def rules(self) -> dict[str, ActivationRule]:
        """How activations are rounded, by parameter of the layer that reads them, and by site.

        Raises:
            RecordError: A quantizer is not known here; names it.
        """
        inputs = {
            name: input_rule(record.activation_bits, record.activation_range, record.quantizer)
            for name, record in self.records.items()
        }
        rules = {name: rule for name, rule in inputs.items() if rule is not None}
        return rules | {name: rule_of(fitted) for name, fitted in self.sites.items()}

    def state(self) -> State:
        """A plain state dict, float32 where it was quantized."""
        state = dict(self.rest)
        for name, record in self.records.items():
            weight = weight_of(self.weights[name], record.shape, record.channel_axis)
            state[name] = torch.from_numpy(weight)
        return state


def encode(records: Mapping[str, Record], weights: Mapping[str, Plain], rest: State) -> State:
    """The tensors to store."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in rest.items()}
    for name, record in records.items():
        quantized = weights[name]
        if isinstance(quantized, Formed):
            parts = {_part(name, part): array for part, array in quantized.parts.items()}
            tensors |= {key: torch.from_numpy(array) for key, array in parts.items()}
            continue
        codes = quantized.codes
        if record.container == "bitplane":
            codes = np.concatenate([plane.reshape(-1) for plane in packing.pack(codes, record.bits)])
        tensors[name + _CODES] = torch.from_numpy(np.ascontiguousarray(codes.reshape(-1)))
        tensors[name + _SCALE] = torch.from_numpy(quantized.scale)
    return tensors


def write(
    path: Path,
    records: Mapping[str, Record],
    origin: Mapping[str, Any],
    tensors: State,
    sites: Mapping[str, Fitted] | None = None,
) -> None:
    """Write the file, not atomically: give it a temporary path."""
    safetensors = _safetensors()
    safetensors.save_file(tensors, path, metadata=metadata(records, origin, sites))
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Put what a file says of itself in order, in place: the library writes it in another one each time."""
    with path.open("r+b") as handle:
        size = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        handle.seek(8)
        handle.write(text.ljust(size))


def metadata(
    records: Mapping[str, Record], origin: Mapping[str, Any], sites: Mapping[str, Fitted] | None = None
) -> dict[str, str]:
    """What the file says of itself."""
    weights = {name: _entry(record) for name, record in records.items()}
    newer = bool(sites) or any(record.quantizer is not None for record in records.values())
    content: dict[str, Any] = {
        "version": _VERSIONS[newer],
        "origin": dict(origin),
        "weights": weights,
    }
    if sites:
        content["sites"] = {name: fitted.to_json() for name, fitted in sites.items()}
    return {"format": "pt", _KEY: json.dumps(content, separators=(",", ":"))}


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
            name + _CODES: ("U8", [record.size], record.size),
            name + _SCALE: ("F32", [scales], 4 * scales),
        }
    form = WEIGHT_FORMS.get(record.form)
    every = [
        {
            _part(name, part): (_TYPES[np.dtype(kind).name], list(shape), 8 * record.size)
            for part, (shape, kind) in form.parts(*record.rows, bits).items()
        }
        for bits in range(1, 9)
    ]
    return max(every, key=lambda places: len(json.dumps(places)))


def _part(name: str, part: str) -> str:
    return f"{name}:{part}"


def is_packed(path: Path) -> bool:
    """Whether a file is one of these."""
    return path.suffix == ".safetensors" and path.is_file() and _KEY in _header(path)


def read(path: Path) -> PackedFile:
    """Read a file back.

    Raises:
        AdapterError: It is none of these, or damaged.
        RecordError: A weight has a form that is not known here; names it.
    """
    described = _described(path)
    for record in described.records.values():
        if record.form is not None:
            form_of(record.form)
    try:
        tensors = _safetensors().load_file(path)
        weights = {name: _decode(name, record, tensors) for name, record in described.records.items()}
    except AdapterError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, LampqError) as err:
        raise AdapterError(f"{path}: damaged ({type(err).__name__}: {err})") from err
    coded = {name + suffix for name in described.records for suffix in (_CODES, _SCALE)}
    coded |= {_part(name, part) for name, w in weights.items() if isinstance(w, Formed) for part in w.parts}
    rest = {name: tensor for name, tensor in tensors.items() if name not in coded}
    return replace(described, weights=weights, rest=rest)


def read_rules(path: Path) -> dict[str, ActivationRule]:
    """`PackedFile.rules` of a file, whose weights are not read; none where it is no such file.

    Raises:
        AdapterError: It is damaged.
        RecordError: A quantizer is not known here; names it.
    """
    return _described(path).rules() if is_packed(path) else {}


def _described(path: Path) -> PackedFile:
    """A file as its header describes it, without tensors."""
    header = _header(path)
    if _KEY not in header:
        raise AdapterError(
            f"{path}: plain weights; name what they belong to: MODEL.py:FACTORY --weights {path.name}"
        )
    try:
        content = json.loads(header[_KEY])
        if content["version"] not in _VERSIONS:
            raise AdapterError(
                f"{path}: version {content['version']} of the packed format, this lampq reads {_VERSIONS[-1]}"
            )
        return PackedFile(
            records={str(name): _record(data) for name, data in content["weights"].items()},
            origin=dict(content["origin"]),
            weights={},
            rest={},
            sites={str(name): Fitted.from_json(data) for name, data in content.get("sites", {}).items()},
        )
    except AdapterError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, LampqError) as err:
        raise AdapterError(f"{path}: damaged ({type(err).__name__}: {err})") from err


def stored_bits(records: Mapping[str, Record]) -> dict[str, tuple[int, int | None]]:
    """Layer -> widths of its weights and of its input."""
    return {record.layer: (record.bits, record.activation_bits) for record in records.values()}


def payload_bytes(size: int, scales: int, bits: int, container: str) -> int:
    """Bytes of codes and scales."""
    return (size if container == "int8" else packing.payload_bytes(size, bits)) + 4 * scales


def _record(data: Mapping[str, Any]) -> Record:
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


def _decode(name: str, record: Record, tensors: State) -> Plain:
    if record.form is not None:
        form = WEIGHT_FORMS.get(record.form)
        told = form.parts(*record.rows, record.bits)
        parts = {part: tensors[_part(name, part)].numpy() for part in told}
        return formed_of(form, parts, record.rows, record.bits)
    stored, scale = tensors[name + _CODES].numpy(), tensors[name + _SCALE].numpy()
    if record.step not in (1, 2) or not 1 <= record.bits <= 8 or scale.shape != (record.scales,):
        raise AdapterError(f"weight {name}: its record does not fit its scales")
    if record.container == "bitplane":
        planes = list(_planes(stored, record))
        codes = packing.unpack(planes, record.bits, record.size)
    else:
        codes = stored
    if not np.isfinite(scale).all() or codes.size != record.size:
        raise AdapterError(f"weight {name}: codes or scales are damaged")
    return Quantized(
        codes=codes.reshape(record.scales, -1),
        scale=scale,
        step=record.step,
        offset=record.offset,
        bits=record.bits,
        squared_error=np.zeros(record.scales),
    )


def _planes(stored: np.ndarray, record: Record) -> Iterator[np.ndarray]:
    at = 0
    for part in packing.fields(record.bits):
        length = packing.payload_bytes(record.size, part.width)
        yield stored[at : at + length]
        at += length
    if at != stored.size:
        raise AdapterError(f"layer {record.layer}: {stored.size} bytes of codes, expected {at}")


def _header(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError as err:
        raise AdapterError(f"{path}: no such file") from err
    except (SafetensorError, OSError) as err:
        raise AdapterError(f"{path}: no valid safetensors file ({reason(err)})") from err


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as err:
        raise MissingExtraError("safetensors", "torch", err) from err
    return safetensors.torch
