"""compressed-tensors: a `QuantizationConfig`, one group for each pair of widths, as vLLM and transformers read it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lampq.conversions import document, expressions
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.modules import EMBEDDING, LINEAR, module_path
from lampq.conversions.target import Target

TITLE = "compressed-tensors config_groups"
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8)
ACTIVATION_BITS = (None, 8)
BLOCKS = True
_TOP = ("config_groups", "ignore", "format", "quant_method")


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """The path of the module."""
    return (module_path(layer, target, LINEAR, EMBEDDING),)


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """The configuration as JSON; weights have a scale per output row."""
    groups: dict[str, dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda e: (e.weight_bits, e.activation_bits or 0)):
        name = f"{entry.weight_bits}_bits"
        name += "" if entry.block is None else f"_groups_of_{entry.block}"
        name += "" if entry.activation_bits is None else "_input_8_bits"
        group = groups.setdefault(
            name,
            {
                "targets": [],
                "weights": _arguments(entry.weight_bits, **_scales(entry.block)),
                "input_activations": (
                    None if entry.activation_bits is None else _arguments(8, strategy="token", dynamic=True)
                ),
                "output_activations": None,
            },
        )
        group["targets"].append("re:^" + re.escape(entry.addresses[0]) + "$")
    dense = all(entry.activation_bits is None for entry in entries)
    data: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized" if dense else "int-quantized",
        "config_groups": groups,
        "ignore": [],
    }
    return document.to_text({**data, **unknown})


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by module; a whole config.json works too. Targets are names, `re:` patterns, or classes.

    A name counts before a pattern, and a pattern before a class; `ignore` before all.
    """
    top = document.mapping(document.parse(text, TITLE), "the configuration")
    top = document.mapping(top.get("quantization_config", top), "quantization_config")
    groups = document.mapping(top.get("config_groups"), "config_groups")
    ignore = [document.text(t, "ignore") for t in document.sequence(top.get("ignore") or [], "ignore")]
    targets = {
        name: [document.text(t, f"targets of {name}") for t in _targets(group, name)]
        for name, group in groups.items()
    }
    places = _places([*ignore, *(t for named in targets.values() for t in named)], addresses)
    ignored = {address for target in ignore for address in places[target]}
    known = set(addresses)
    ranked: dict[str, tuple[int, Widths]] = {}
    strangers = []
    for name, group in groups.items():
        group = document.mapping(group, f"group {name}")
        if group.get("weights") is None:
            continue
        widths = _widths(group, name)
        for target in targets[name]:
            fitting = places[target]
            strangers += [] if fitting else [target]
            rank = 0 if target in known else 1 if target.startswith("re:") else 2
            for address in fitting:
                if address not in ranked or rank < ranked[address][0]:
                    ranked[address] = rank, widths
    sizes = (document.mapping(g, "a group").get("weights") or {} for g in groups.values())
    blocks = frozenset(
        w["group_size"] for w in sizes if isinstance(w.get("group_size"), int) and w["group_size"] > 0
    )
    unknown = {k: v for k, v in top.items() if k not in _TOP}
    return Foreign(
        widths={a: widths for a, (_, widths) in ranked.items() if a not in ignored},
        strangers=tuple(strangers),
        unknown=unknown,
        blocks=blocks,
    )


def _targets(group: Any, name: str) -> list[Any]:
    group = document.mapping(group, f"group {name}")
    if group.get("weights") is None:
        return []
    return document.sequence(group.get("targets"), f"targets of {name}")


def _places(targets: Sequence[str], addresses: Sequence[str]) -> dict[str, list[str]]:
    """The modules that each target names."""
    known = set(addresses)
    patterns = [target for target in targets if target.startswith("re:") and target not in known]
    matches = expressions.fitting([target[3:] for target in patterns], addresses, expressions.MATCH)
    # Of classes, only the one that layers of a plan are of can be told without the model.
    places = {t: [t] if t in known else list(addresses) if t == LINEAR else [] for t in targets}
    return {**places, **dict(zip(patterns, matches, strict=True))}


def _arguments(bits: int, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "symmetric": True, "dynamic": False, **more}


def _scales(block: int | None) -> dict[str, Any]:
    return {"strategy": "channel"} if block is None else {"strategy": "group", "group_size": block}


def _widths(group: Mapping[str, Any], name: str) -> Widths:
    weights = document.mapping(group["weights"], f"weights of {name}")
    if weights.get("type", "int") != "int":
        document.malformed(f"type of the weights of {name}", weights["type"], '"int"')
    inputs = group.get("input_activations")
    activation = None
    if inputs is not None:
        inputs = document.mapping(inputs, f"input_activations of {name}")
        if inputs.get("type", "int") != "int":
            document.malformed(f"type of the inputs of {name}", inputs["type"], '"int"')
        activation = document.bits(inputs.get("num_bits"), f"num_bits of the inputs of {name}")
    return document.bits(weights.get("num_bits"), f"num_bits of the weights of {name}"), activation
