"""A plan as a recipe of ai-edge-quantizer: the JSON list of rules that its `load_quantization_recipe` takes.

That tool finds operators by a regular expression searched for in the names of their outputs, each followed by
a semicolon; the last rule that fits wins. Every layer therefore gets one rule that fits its own names and no
other.
"""

from __future__ import annotations

import re
from typing import Any

from lampq.adapters.tflite import containers
from lampq.adapters.tflite.backend import TfliteModel
from lampq.adapters.tflite.graph import text
from lampq.adapters.tflite.integers import WIDE
from lampq.adapters.tflite.operands import MATMUL
from lampq.adapters.tflite.places import Site
from lampq.adapters.tflite.weights import Weight
from lampq.core.values.errors import AdapterError, PlanError
from lampq.core.values.plan import Plan

_ALGORITHM = "min_max_uniform_quantize"


def recipe(model: TfliteModel, plan: Plan) -> list[dict[str, Any]]:
    """The rules that make ai-edge-quantizer give every layer the container of a plan.

    Weights are symmetric and per channel, as here; the tool chooses scales its own way. Activations are
    quantized while running, or in 8 or 16 bits with ranges that the tool calibrates, where the plan has activation
    widths.

    Args:
        model: The model that the plan is for.
        plan: Widths by layer name.

    Raises:
        PlanError: The plan names layers that the model has not.
        AdapterError: Two operators cannot be told apart by their outputs' names, or the tool has no such
            container.
    """
    weights = model.variant.opened.weights
    rules = []
    for decision in plan.layers:
        weight = weights.get(decision.name)
        if weight is None:
            raise PlanError(f"the plan is for another model: {model.path.name} has no layer {decision.name}")
        width = containers.container_bits(weight, decision.weight_bits, plan.container)
        rules += layer_rules(model, weight, width, decision.activation_bits)
    check_distinct(model, rules)
    return rules


def layer_rules(model: TfliteModel, weight: Weight, width: int, inputs: int | None) -> list[dict[str, Any]]:
    """The rules of one weight: one a place where it is used.

    Raises:
        AdapterError: The tool has no such container.
    """
    if MATMUL in weight.op_names and width != 8:
        raise AdapterError(f"layer {weight.name}: the tool stores the constants of products in 8 bits only")
    fixed = inputs if inputs is not None and containers.multiplied(weight, width, inputs) else None
    numbers = not containers.multiplied(weight, width, fixed)
    return [
        {
            "regex": f"^{re.escape(scope(model, site))}$",
            "operation": site.op_name,
            "algorithm_key": _ALGORITHM,
            "op_config": _config(width, fixed, numbers=numbers),
        }
        for site in weight.sites
    ]


def _config(width: int, inputs: int | None, *, numbers: bool) -> dict[str, Any]:
    weights = {"num_bits": width, "symmetric": True, "granularity": "CHANNELWISE", "dtype": "INT"}
    config: dict[str, Any] = {
        "weight_tensor_config": weights,
        # Where no operator multiplies codes, the tool too makes numbers of them first.
        "compute_precision": "FLOAT" if numbers else "INTEGER",
        "explicit_dequantize": numbers,
        # The tool's own policy does not know every container that the runtime computes rightly.
        "skip_checks": True,
        "min_weight_elements": 0,
    }
    if inputs is not None:
        config["activation_tensor_config"] = {
            "num_bits": inputs,
            "symmetric": inputs == WIDE,
            "granularity": "TENSORWISE",
            "dtype": "INT",
        }
    return config


def scope(model: TfliteModel, site: Site) -> str:
    """What the tool matches its expressions against."""
    subgraph = model.variant.opened.graph.subgraphs[site.subgraph]
    names = [text(subgraph.tensors[tensor].name) for tensor in subgraph.ops[site.op].outputs]
    return "".join(f"{name};" for name in names if name)


def check_distinct(model: TfliteModel, rules: list[dict[str, Any]]) -> None:
    """Make sure that each rule fits one operator of its kind in the whole model.

    Raises:
        AdapterError: One fits several.
    """
    scopes: dict[tuple[str, str], int] = {}
    for subgraph in model.variant.opened.graph.subgraphs:
        for op in subgraph.ops:
            names = "".join(
                f"{text(subgraph.tensors[t].name)};" for t in op.outputs if subgraph.tensors[t].name
            )
            key = (op.name, f"^{re.escape(names)}$")
            scopes[key] = scopes.get(key, 0) + 1
    for rule in rules:
        count = scopes[rule["operation"], rule["regex"]]
        if count != 1:
            raise AdapterError(
                f"{model.path}: {count} operators are called {rule['regex'][:200]}; "
                f"their outputs need names of their own for a recipe"
            )
