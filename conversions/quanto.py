"""optimum-quanto: its quantization map, module -> quantized types.

`requantize(model, state_dict, quantization_map)` takes it whole. For calls of `quantize`, go through it by type:
`quantize(model, weights=weights, activations=activations, include=[module])`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lampq.conversions import document
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.modules import CONVOLUTION, LINEAR, module_path
from lampq.conversions.target import Target

TITLE = "optimum-quanto quantization map"
WEIGHT_BITS = (2, 4, 8)
ACTIVATION_BITS = (None, 8)
BLOCKS = False
_NONE = "none"


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """The path of the module."""
    return (module_path(layer, target, LINEAR, CONVOLUTION),)


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """The map as JSON."""
    widths = {
        e.addresses[0]: {"weights": _qtype(e.weight_bits), "activations": _qtype(e.activation_bits)}
        for e in entries
    }
    return document.to_text({**widths, **unknown})


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by module; modules without quantized weights (normalizations) are kept as unknown."""
    data = document.mapping(document.parse(text, TITLE), "the map")
    known, widths = set(addresses), dict[str, Widths]()
    strangers, unknown = [], {}
    for name, value in data.items():
        value = document.mapping(value, f"the entry of {name}")
        weight = _bits(value.get("weights"), f"weights of {name}")
        activation = _bits(value.get("activations", _NONE), f"activations of {name}")
        if weight is None:
            unknown[name] = value
        elif name in known:
            widths[name] = weight, activation
        else:
            strangers.append(name)
    return Foreign(widths=widths, strangers=tuple(strangers), unknown=unknown)


def _qtype(bits: int | None) -> str:
    return _NONE if bits is None else f"qint{bits}"


def _bits(value: Any, where: str) -> int | None:
    if value is None or value == _NONE:
        return None
    match = re.fullmatch(r"qint([248])", str(value))
    if match is None:
        document.malformed(where, value, "qint2, qint4, qint8 or none")
    return int(match[1])
