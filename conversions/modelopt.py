"""NVIDIA ModelOpt: the `quant_cfg` of `modelopt.torch.quantization.quantize`.

All quantizers are switched off, then those of the plan's modules on, each by its own name: later entries win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lampq.conversions import document
from lampq.conversions.entry import AnyLayer, Entry, Foreign, NoPlaceError
from lampq.conversions.modules import CONVOLUTION, LINEAR, module_path
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError

TITLE = "NVIDIA ModelOpt quant_cfg"
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8)
ACTIVATION_BITS = (None, 2, 3, 4, 5, 6, 7, 8)
BLOCKS = False
_WEIGHT, _INPUT = "weight_quantizer", "input_quantizer"
_MAGIC = "*?[]"
_MOST_RULES, _MOST_CHARACTERS = 10_000, 500_000


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """The path of the module."""
    path = module_path(layer, target, LINEAR, CONVOLUTION)
    if any(char in path for char in _MAGIC):
        raise NoPlaceError("its name holds a wildcard, which the tool has no way to escape")
    return (path,)


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """The configuration as JSON; weights have a scale per output channel, inputs one each."""
    rules: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for entry in entries:
        name = entry.addresses[0]
        rules.append(_rule(f"{name}.{_WEIGHT}", entry.weight_bits, axis=0))
        if entry.activation_bits is not None:
            rules.append(_rule(f"{name}.{_INPUT}", entry.activation_bits, axis=None))
    return document.to_text({"quant_cfg": rules, "algorithm": "max", **unknown})


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by module, in the order of the entries; the older form, an object of patterns, works too."""
    top = document.mapping(document.parse(text, TITLE), "the configuration")
    state: dict[tuple[str, str], int | None] = {}
    strangers = []
    for name, bits in _rules(top.get("quant_cfg")):
        fitting = [
            (address, part)
            for address in addresses
            for part in (_WEIGHT, _INPUT)
            if fnmatchcase(f"{address}.{part}", name)
        ]
        if not fitting and not any(char in name for char in _MAGIC):
            strangers.append(name)
        state.update(dict.fromkeys(fitting, bits))
    weights = {
        address: bits for (address, part), bits in state.items() if part == _WEIGHT and bits is not None
    }
    return Foreign(
        widths={address: (bits, state.get((address, _INPUT))) for address, bits in weights.items()},
        strangers=tuple(strangers),
        unknown={
            k: v
            for k, v in top.items()
            if k not in ("quant_cfg", "algorithm") or (v != "max" and k != "quant_cfg")
        },
    )


def _rule(name: str, bits: int, *, axis: int | None) -> dict[str, Any]:
    return {"quantizer_name": name, "cfg": {"num_bits": bits, "axis": axis}}


def _rules(value: Any) -> list[tuple[str, int | None]]:
    """(pattern, width or None for off) in order."""
    if isinstance(value, dict):
        value = [
            {"quantizer_name": name, "enable": rest.get("enable", True), "cfg": rest}
            for name, rest in value.items()
            if isinstance(rest, dict)
        ]
    parsed: list[tuple[str, int | None]] = []
    rules = document.sequence(value, "quant_cfg")
    if len(rules) > _MOST_RULES:
        raise PlanError(f"{len(rules):,} entries of quant_cfg; at most {_MOST_RULES:,} are read")
    for index, rule in enumerate(rules):
        where = f"entry {index} of quant_cfg"
        rule = document.mapping(rule, where)
        name = document.text(rule.get("quantizer_name"), f"quantizer_name of {where}")
        if rule.get("enable", True) is False:
            parsed.append((name, None))
        elif rule.get("cfg"):
            cfg = document.mapping(rule["cfg"], f"cfg of {where}")
            parsed.append((name, document.bits(cfg.get("num_bits"), f"num_bits of {name}")))
    if sum(len(name) for name, _ in parsed) > _MOST_CHARACTERS:
        raise PlanError(f"patterns of more than {_MOST_CHARACTERS:,} characters in all")
    return parsed
