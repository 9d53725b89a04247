"""Quantized weights in a safetensors file with exactly b bits each.

Beside the tensors that stay as they are, each quantized weight has its codes (`NAME.codes`, uint8, see
`lampq.core.values.packing`) and one float32 scale per output channel or block of it (`NAME.scale`); what the codes
mean is in the file's metadata. The file is a checkpoint like any other: a factory can be filled from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lampq.adapters.torch.checkpoint import State, check_header
from lampq.adapters.torch.packed_records import (
    CODES,
    KEY,
    SCALE,
    VERSIONS,
    Record,
    metadata,
    part_name,
    record_of,
)
from lampq.core.measuring.encoding import Plain
from lampq.core.measuring.setting import input_rule
from lampq.core.quantizing.formed import Formed, formed_of
from lampq.core.quantizing.quantizer import Quantized, weight_of
from lampq.core.treatments import rule_of
from lampq.core.values import packing
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.errors import AdapterError, LampqError, MissingExtraError
from lampq.core.values.fitted import Fitted
from lampq.core.values.messages import reason
from lampq.core.values.rounding_kinds import form_of
from lampq.core.values.weight_form import WEIGHT_FORMS


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
            parts = {part_name(name, part): array for part, array in quantized.parts.items()}
            tensors |= {key: torch.from_numpy(array) for key, array in parts.items()}
            continue
        codes = quantized.codes
        if record.container == "bitplane":
            codes = np.concatenate([plane.reshape(-1) for plane in packing.pack(codes, record.bits)])
        tensors[name + CODES] = torch.from_numpy(np.ascontiguousarray(codes.reshape(-1)))
        tensors[name + SCALE] = torch.from_numpy(quantized.scale)
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


def is_packed(path: Path) -> bool:
    """Whether a file is one of these."""
    return path.suffix == ".safetensors" and path.is_file() and KEY in _header(path)


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
    coded = {name + suffix for name in described.records for suffix in (CODES, SCALE)}
    coded |= {
        part_name(name, part) for name, w in weights.items() if isinstance(w, Formed) for part in w.parts
    }
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
    if KEY not in header:
        raise AdapterError(
            f"{path}: plain weights; name what they belong to: MODEL.py:FACTORY --weights {path.name}"
        )
    try:
        content = json.loads(header[KEY])
        if content["version"] not in VERSIONS:
            raise AdapterError(
                f"{path}: version {content['version']} of the packed format, this lampq reads {VERSIONS[-1]}"
            )
        return PackedFile(
            records={str(name): record_of(data) for name, data in content["weights"].items()},
            origin=dict(content["origin"]),
            weights={},
            rest={},
            sites={str(name): Fitted.from_json(data) for name, data in content.get("sites", {}).items()},
        )
    except AdapterError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, LampqError) as err:
        raise AdapterError(f"{path}: damaged ({type(err).__name__}: {err})") from err


def _decode(name: str, record: Record, tensors: State) -> Plain:
    if record.form is not None:
        form = WEIGHT_FORMS.get(record.form)
        told = form.parts(*record.rows, record.bits)
        parts = {part: tensors[part_name(name, part)].numpy() for part in told}
        return formed_of(form, parts, record.rows, record.bits)
    stored, scale = tensors[name + CODES].numpy(), tensors[name + SCALE].numpy()
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
