"""AIMET: parameter encodings (version 0.6.1), which AIMET for PyTorch and for ONNX load.

An encoding holds a range with each width. Here it is the symmetric min-max range of every output channel, from the
statistics of the model or profile; AIMET may compute its own afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lampq.adapters import format_named
from lampq.adapters.format import NODES
from lampq.conversions import document
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.modules import CONVOLUTION, LINEAR, module_path
from lampq.conversions.onnx_nodes import initializer
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError
from lampq.core.values.layer import Layer

TITLE = "AIMET encodings"
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8)
ACTIVATION_BITS = (None,)
BLOCKS = False
_VERSION = "0.6.1"
# Of an all-zero channel, which any scale represents.
_SMALLEST_SCALE = 1e-12


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """The parameter of a PyTorch model, the initializer of an ONNX model."""
    if target.model is not None and format_named(target.model.format).addresses == NODES:
        return (initializer(layer, target),)
    return (f"{module_path(layer, target, LINEAR, CONVOLUTION)}.weight",)


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """Parameter -> one encoding a channel.

    Raises:
        PlanError: Only a plan is at hand, which has no ranges.
    """
    encodings = {entry.addresses[0]: _encodings(entry) for entry in entries}
    data = {"version": _VERSION, "activation_encodings": {}, "param_encodings": encodings}
    return document.to_text({**data, **unknown})


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by parameter, from versions 0.6.1 (an object) and 1.0.0 (a list); ranges are not kept."""
    top = document.mapping(document.parse(text, TITLE), "the encodings")
    params = top.get("param_encodings")
    if isinstance(params, list):
        entries = [document.mapping(item, "an entry of param_encodings") for item in params]
        named = {
            document.text(e.get("name"), "name of an encoding"): (e.get("bw"), e.get("dtype"))
            for e in entries
        }
    else:
        named = {
            name: _shared(value, name) for name, value in document.mapping(params, "param_encodings").items()
        }
    known, widths = set(addresses), dict[str, Widths]()
    strangers = []
    for name, (bits, dtype) in named.items():
        if name not in known:
            # Biases and normalizations have encodings too, often of 32 bits.
            strangers += [] if isinstance(bits, int) and bits > 8 else [name]
            continue
        if str(dtype).lower() != "int":
            document.malformed(f"dtype of {name}", dtype, '"int"')
        widths[name] = document.bits(bits, f"bitwidth of {name}"), None
    keys = ("version", "activation_encodings", "param_encodings")
    unknown = {k: v for k, v in top.items() if k not in keys}
    if top.get("activation_encodings"):
        unknown["activation_encodings"] = top["activation_encodings"]
    return Foreign(widths=widths, strangers=tuple(strangers), unknown=unknown)


def _encodings(entry: Entry) -> list[dict[str, Any]]:
    if not isinstance(entry.layer, Layer):
        raise PlanError("encodings hold ranges, which a plan does not; give the model or a profile of it")
    top = 2 ** (entry.weight_bits - 1) - 1
    largest = np.maximum(np.abs(entry.layer.weight.min), np.abs(entry.layer.weight.max))
    scales = np.maximum(largest / max(top, 1), _SMALLEST_SCALE)
    return [
        {
            "bitwidth": entry.weight_bits,
            "dtype": "int",
            "is_symmetric": "True",
            "max": top * scale,
            "min": -(top + 1) * scale,
            "offset": -(top + 1),
            "scale": scale,
        }
        for scale in scales.tolist()
    ]


def _shared(value: Any, name: str) -> tuple[Any, Any]:
    """Width and type that the channels of a parameter share."""
    channels = [
        document.mapping(c, f"an encoding of {name}")
        for c in document.sequence(value, f"encodings of {name}")
    ]
    types = [(c.get("bitwidth"), c.get("dtype", "int")) for c in channels]
    if not types or any(other != types[0] for other in types):
        document.malformed(f"bitwidth of {name}", [bits for bits, _ in types], "one width for all channels")
    return types[0]
