"""ai-edge-quantizer: a recipe, the rules that its `load_quantization_recipe` takes.

`lampq.adapters.tflite.recipe` says how the tool finds operators.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from lampq.adapters import format_named
from lampq.adapters.format import OPERATORS
from lampq.conversions import document, expressions
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError

if TYPE_CHECKING:
    from lampq.adapters.tflite.backend import TfliteModel

TITLE = "ai-edge-quantizer recipe"
WEIGHT_BITS = (2, 4, 8)
ACTIVATION_BITS = (None, 8)
BLOCKS = False
_EXACT = re.compile(r"\^.*\$")


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """Operator and output names of every place, as the tool sees them."""
    from lampq.adapters.tflite.recipe import scope

    model = _model(target)
    return tuple(
        f"{site.op_name} {scope(model, site)}" for site in model.variant.opened.weights[layer.name].sites
    )


def weight_bits(layer: AnyLayer, target: Target) -> tuple[int, ...]:
    """Widths whose codes the layer's operators compute with themselves."""
    from lampq.adapters.tflite import containers
    from lampq.adapters.tflite.operands import MATMUL

    weight = _model(target).variant.opened.weights[layer.name]
    if MATMUL in weight.op_names:
        return (8,)
    return tuple(bits for bits in WEIGHT_BITS if containers.multiplied(weight, bits))


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """The rules, after those that were kept: the last that fits wins."""
    from lampq.adapters.tflite.recipe import check_distinct, layer_rules

    model = _model(target)
    rules: list[dict[str, Any]] = []
    for entry in entries:
        weight = model.variant.opened.weights[entry.layer.name]
        rules += layer_rules(model, weight, entry.weight_bits, entry.activation_bits)
    check_distinct(model, rules)
    return document.to_text([*unknown.get("rules", ()), *rules])


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by operator; rules that fit no layer of the model are kept, unless they name one operator exactly."""
    widths: dict[str, Widths] = {}
    strangers: list[str] = []
    unknown: list[Any] = []
    rules = [
        document.mapping(rule, f"rule {index}")
        for index, rule in enumerate(document.sequence(document.parse(text, TITLE), "the recipe"))
    ]
    patterns = [document.text(rule.get("regex"), f"regex of rule {i}") for i, rule in enumerate(rules)]
    by_scope: dict[str, list[str]] = {}
    for address in addresses:
        by_scope.setdefault(address.partition(" ")[2], []).append(address)
    matches = expressions.fitting(patterns, list(by_scope), expressions.SEARCH)
    for index, (rule, pattern, scopes) in enumerate(zip(rules, patterns, matches, strict=True)):
        where = f"rule {index}"
        operation = str(rule.get("operation"))
        fitting = [
            address
            for scope in scopes
            for address in by_scope[scope]
            if operation in ("*", address.partition(" ")[0])
        ]
        if not fitting and _EXACT.fullmatch(pattern):
            strangers.append(pattern)
        elif not fitting:
            unknown.append(rule)
        if not fitting:
            continue
        rule_widths = _widths(rule, where)
        for address in fitting:
            widths.pop(address, None)
            widths.update({} if rule_widths is None else {address: rule_widths})
    return Foreign(widths=widths, strangers=tuple(strangers), unknown={"rules": unknown} if unknown else {})


def _model(target: Target) -> TfliteModel:
    if target.model is None or format_named(target.model.format).addresses != OPERATORS:
        raise PlanError("a recipe names operators of a TFLite file; give it with --model")
    return cast("TfliteModel", target.model)


def _widths(rule: Mapping[str, Any], where: str) -> Widths | None:
    """Widths of a rule, None where it leaves the weights float."""
    config = rule.get("op_config") or {}
    config = document.mapping(config, f"op_config of {where}")
    weights = config.get("weight_tensor_config")
    if rule.get("algorithm_key") == "no_quantize" or weights is None:
        return None
    inputs = config.get("activation_tensor_config")
    return (
        document.bits(
            document.mapping(weights, f"weights of {where}").get("num_bits"), f"num_bits of {where}"
        ),
        None
        if inputs is None
        else document.bits(
            document.mapping(inputs, f"inputs of {where}").get("num_bits"),
            f"num_bits of the inputs of {where}",
        ),
    )
