"""A JSON object of widths by layer name: `{"blocks.0.fc1": 4}`, or with inputs `{"blocks.0.fc1": {"weight_bits": 4,
"activation_bits": 8}}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lampq.conversions import document
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.target import Target

TITLE = "plain JSON"
WEIGHT_BITS = (1, 2, 3, 4, 5, 6, 7, 8)
ACTIVATION_BITS = (None, 2, 3, 4, 5, 6, 7, 8)
BLOCKS = True


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """The layer's own name."""
    return (layer.name,)


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """Widths by name."""
    return document.to_text({entry.addresses[0]: _value(entry) for entry in entries})


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by name; other members of a layer's object are kept."""
    known, widths, unknown = set(addresses), {}, {}
    data = document.mapping(document.parse(text, TITLE), "the configuration")
    for name, value in data.items():
        widths[name], rest = _widths(value, name)
        unknown.update({name: rest} if rest else {})
    return Foreign(
        widths={name: w for name, w in widths.items() if name in known},
        strangers=tuple(name for name in widths if name not in known),
        unknown=unknown,
    )


def _value(entry: Entry) -> Any:
    if entry.activation_bits is None:
        return entry.weight_bits
    return {"weight_bits": entry.weight_bits, "activation_bits": entry.activation_bits}


def _widths(value: Any, name: str) -> tuple[Widths, dict[str, Any]]:
    if not isinstance(value, dict):
        return (document.bits(value, f"the width of {name}"), None), {}
    activation = value.get("activation_bits")
    widths = (
        document.bits(value.get("weight_bits"), f"weight_bits of {name}"),
        None if activation is None else document.bits(activation, f"activation_bits of {name}"),
    )
    return widths, {k: v for k, v in value.items() if k not in ("weight_bits", "activation_bits")}
