"""ONNX Runtime, static quantization: `TensorQuantOverrides` of the extra options, by initializer.

JSON has no QuantType; replace each "quant_type" by `QuantType[text]` before the call. Overrides speak of weights; how
inputs are quantized is the call's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lampq.conversions import document
from lampq.conversions.entry import AnyLayer, Entry, Foreign, NoPlaceError, Widths
from lampq.conversions.onnx_nodes import initializer, site
from lampq.conversions.target import Target

TITLE = "ONNX Runtime TensorQuantOverrides"
WEIGHT_BITS = (4, 8)
ACTIVATION_BITS = (None,)
BLOCKS = False
_TYPES = {"QInt4": 4, "QUInt4": 4, "QInt8": 8, "QUInt8": 8}
_WRITTEN = {4: "QInt4", 8: "QInt8"}
_TOP = "TensorQuantOverrides"
_USUAL = {"axis", "symmetric", "quant_type"}


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """The name of the initializer."""
    if any(use.chain for use in site(layer, target).uses):
        raise NoPlaceError("its operator reads the weight through other nodes")
    return (initializer(layer, target),)


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """Initializer -> type, per channel and symmetric."""
    overrides = {
        entry.addresses[0]: [
            {
                "quant_type": _WRITTEN[entry.weight_bits],
                "axis": site(entry.layer, target).channel_axis,
                "symmetric": True,
                **unknown.get(entry.addresses[0], {}),
            }
        ]
        for entry in entries
    }
    return document.to_text({_TOP: overrides})


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by initializer; overrides of other tensors and further settings are kept."""
    top = document.mapping(document.parse(text, TITLE), "the configuration")
    overrides = document.mapping(top.get(_TOP, top), _TOP)
    known, widths = set(addresses), dict[str, Widths]()
    strangers, unknown = [], {}
    for name, value in overrides.items():
        parts = document.sequence(value, f"the overrides of {name}")
        first = document.mapping(parts[0] if parts else None, f"the overrides of {name}")
        if name not in known:
            strangers.append(name)
            continue
        bits = {
            _bits(document.mapping(part, f"an override of {name}").get("quant_type"), name) for part in parts
        }
        if len(bits) != 1:
            document.malformed(f"quant_type of {name}", sorted(bits), "one type for all channels")
        widths[name] = bits.pop(), None
        rest = {k: v for k, v in first.items() if k not in _USUAL}
        unknown.update({name: rest} if rest else {})
    return Foreign(widths=widths, strangers=tuple(strangers), unknown=unknown)


def _bits(value: Any, name: str) -> int:
    bits = _TYPES.get(str(value).rpartition(".")[2])
    if bits is None:
        document.malformed(f"quant_type of {name}", value, f"one of {', '.join(_TYPES)}")
    return bits
