"""NNCF: what to call `compress_weights` with, and the ratio of 4-bit weights that comes out.

The tool chooses which layers get 8 bits by its own measure, unless told to leave them out. So there is one call a
width, each leaving out the nodes of the other: together they give every layer its width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lampq.conversions import document
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.onnx_nodes import node_names
from lampq.conversions.target import Target

TITLE = "NNCF compress_weights"
WEIGHT_BITS = (4, 8)
ACTIVATION_BITS = (None,)
BLOCKS = False
_MODES = {4: "int4_sym", 8: "int8_sym"}
_WIDTHS = {"int4_sym": 4, "int4_asym": 4, "int8_sym": 8, "int8_asym": 8}


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """Names of the nodes, of an ONNX file."""
    return node_names(layer, target, "MatMul", "Gemm")


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """The calls, each with its mode and the nodes it takes and leaves out, and the share of 4-bit weights."""
    nodes = {bits: [a for e in entries if e.weight_bits == bits for a in e.addresses] for bits in WEIGHT_BITS}
    calls = []
    for bits, layers in nodes.items():
        others = sorted(name for other, names in nodes.items() if other != bits for name in names)
        if layers:
            extra = {"ratio": 1.0, "group_size": -1, "all_layers": True} if bits == 4 else {}
            calls.append({"mode": _MODES[bits], **extra, "nodes": layers, "ignored_scope": {"names": others}})
    size = sum(entry.layer.size for entry in entries)
    narrow = sum(entry.layer.size for entry in entries if entry.weight_bits == 4)
    return document.to_text({"compress_weights": calls, "ratio": narrow / size, **unknown})


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by node: those a call takes, or where it does not say, all that it does not leave out."""
    top = document.mapping(document.parse(text, TITLE), "the configuration")
    known = set(addresses)
    widths: dict[str, Widths] = {}
    strangers: list[str] = []
    for index, call in enumerate(document.sequence(top.get("compress_weights"), "compress_weights")):
        call = document.mapping(call, f"call {index}")
        mode = str(call.get("mode")).lower()
        if mode not in _WIDTHS:
            document.malformed(f"mode of call {index}", call.get("mode"), f"one of {', '.join(_WIDTHS)}")
        scope = document.mapping(call.get("ignored_scope", {}), f"ignored_scope of call {index}")
        ignored = _names(scope.get("names", []), f"names of call {index}")
        left_out = set(ignored)
        nodes = _names(call.get("nodes", [a for a in addresses if a not in left_out]), "nodes")
        strangers += [name for name in (*nodes, *ignored) if name not in known]
        for name in nodes:
            if name in known:
                widths.setdefault(name, (_WIDTHS[mode], None))
    unknown = {k: v for k, v in top.items() if k not in ("compress_weights", "ratio")}
    return Foreign(widths=widths, strangers=tuple(dict.fromkeys(strangers)), unknown=unknown)


def _names(value: Any, where: str) -> list[str]:
    return [document.text(name, where) for name in document.sequence(value, where)]
