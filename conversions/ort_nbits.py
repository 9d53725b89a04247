"""ONNX Runtime, weights of MatMul alone: `customized_weight_config` of its MatMulNBits quantizer, by node name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lampq.conversions import document
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.onnx_nodes import node_names
from lampq.conversions.target import Target

TITLE = "ONNX Runtime customized_weight_config"
# Other widths its quantizer rounds to, and stores as floats.
WEIGHT_BITS = (4, 8)
ACTIVATION_BITS = (None,)
BLOCKS = True


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """Names of the MatMul nodes."""
    return node_names(layer, target, "MatMul")


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """Node name -> bits, scheme and group size; the last is the quantizer's own setting where rows are not cut."""
    config: dict[str, Any] = {}
    for entry in entries:
        for name in entry.addresses:
            group = {} if entry.block is None else {"group_size": entry.block}
            config[name] = {"bits": entry.weight_bits, "scheme": "sym", **group, **unknown.get(name, {})}
    return document.to_text(config)


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by node; other settings are kept."""
    data = document.mapping(document.parse(text, TITLE), "the configuration")
    known, widths = set(addresses), dict[str, Widths]()
    strangers, unknown = [], {}
    blocks: set[int] = set()
    for name, value in data.items():
        value = document.mapping(value, f"the entry of {name}")
        if name not in known:
            strangers.append(name)
            continue
        widths[name] = document.bits(value.get("bits"), f"bits of {name}"), None
        rest = {
            k: v for k, v in value.items() if k not in ("bits", "group_size") and (k, v) != ("scheme", "sym")
        }
        unknown.update({name: rest} if rest else {})
        size = value.get("group_size")
        blocks |= {size} if isinstance(size, int) and size > 0 else set()
    return Foreign(widths=widths, strangers=tuple(strangers), unknown=unknown, blocks=frozenset(blocks))
