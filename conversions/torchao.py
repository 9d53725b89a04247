"""torchao: an `FqnToConfig`, as `torchao.core.config.config_from_dict` reads it.

Weights are whole numbers with a scale per output row. Inputs of 8 bits are quantized while running, per token, which
is what torchao has. torchao keeps 8 bits a weight on disk whatever the width: this passes the widths on, not the size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lampq.conversions import document, expressions
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.modules import LINEAR, module_path
from lampq.conversions.target import Target

TITLE = "torchao FqnToConfig"
WEIGHT_BITS = (1, 2, 3, 4, 5, 6, 7, 8)
ACTIVATION_BITS = (None, 8)
BLOCKS = True
_WEIGHT_ONLY, _DYNAMIC = "IntxWeightOnlyConfig", "Int8DynamicActivationIntxWeightConfig"


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """The path of the linear module."""
    return (module_path(layer, target, LINEAR),)


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """The configuration as JSON."""
    configs = {entry.addresses[0]: _config(entry) for entry in entries}
    data = {**unknown.get("_data", {}), "fqn_to_config": {**configs, **unknown.get("fqn_to_config", {})}}
    return document.to_text({"_type": "FqnToConfig", "_version": 1, "_data": data})


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by module; patterns (`re:...`, `_default`) count for the modules that no exact name covers."""
    top = document.mapping(document.parse(text, TITLE), "the configuration")
    if top.get("_type") != "FqnToConfig":
        document.malformed("_type", top.get("_type"), '"FqnToConfig"')
    data = document.mapping(top.get("_data"), "_data")
    entries = document.mapping(data.get("fqn_to_config"), "fqn_to_config")
    widths: dict[str, Widths] = {}
    strangers, unknown = (
        [],
        {k: v for k, v in data.items() if k not in ("fqn_to_config", "module_fqn_to_config")},
    )
    covered = _covered(addresses, entries)
    for name, config in entries.items():
        fitting = covered[name]
        if config is None:
            continue
        layer_widths = _widths(config, name)
        for address in fitting:
            widths.setdefault(address, layer_widths)
        if not fitting and name != "_default":
            strangers.append(name)
    return Foreign(
        blocks=frozenset(_blocks(entries)),
        widths=widths,
        strangers=tuple(strangers),
        unknown={"_data": unknown} if unknown else {},
    )


def _covered(addresses: Sequence[str], entries: Mapping[str, Any]) -> dict[str, list[str]]:
    """The modules of each entry."""
    known, rest = set(addresses), [a for a in addresses if a not in entries]
    patterns = [name for name in entries if name.startswith("re:")]
    matches = expressions.fitting([name[3:] for name in patterns], rest, expressions.FULL)
    covered = {name: [name] if name in known else [] for name in entries}
    covered.update(zip(patterns, matches, strict=True))
    if "_default" in entries:
        others = {address for matched in matches for address in matched}
        covered["_default"] = [address for address in rest if address not in others]
    return covered


def _config(entry: Entry) -> dict[str, Any]:
    dynamic = entry.activation_bits is not None
    granularity = {"_type": "PerAxis", "_version": 1, "_data": {"axis": 0}}
    if entry.block is not None:
        granularity = {"_type": "PerGroup", "_version": 1, "_data": {"group_size": entry.block}}
    mapping = {"_type": "MappingType", "_data": "SYMMETRIC"}
    return {
        "_type": _DYNAMIC if dynamic else _WEIGHT_ONLY,
        "_version": 2,
        "_data": {
            "weight_dtype": {"_type": "torch.dtype", "_data": f"int{entry.weight_bits}"},
            "weight_granularity" if dynamic else "granularity": granularity,
            "weight_mapping_type" if dynamic else "mapping_type": mapping,
        },
    }


def _widths(config: Any, name: str) -> Widths:
    config = document.mapping(config, f"the configuration of {name}")
    kind = config.get("_type")
    if kind not in (_WEIGHT_ONLY, _DYNAMIC):
        document.malformed(f"_type of {name}", kind, f"{_WEIGHT_ONLY} or {_DYNAMIC}, which have a width")
    data = document.mapping(config.get("_data"), f"_data of {name}")
    dtype = document.mapping(data.get("weight_dtype"), f"weight_dtype of {name}").get("_data")
    match = re.fullmatch(r"int([1-8])", str(dtype))
    if match is None:
        document.malformed(f"weight_dtype of {name}", dtype, "int1 to int8")
    return int(match[1]), 8 if kind == _DYNAMIC else None


def _blocks(entries: Mapping[str, Any]) -> Iterator[int]:
    for name, config in entries.items():
        data = {} if config is None else document.mapping(config["_data"], f"_data of {name}")
        for key in ("granularity", "weight_granularity"):
            granularity = document.mapping(data.get(key, {}), f"{key} of {name}")
            size = document.mapping(granularity.get("_data", {}), f"{key} of {name}").get("group_size")
            if isinstance(size, int):
                yield size
