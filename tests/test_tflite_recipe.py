"""Plans as recipes of ai-edge-quantizer, matched the way that tool matches them.

benchmarks/tflite_recipe.py runs the tool itself.
"""

import re

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_models import NAMES, Builder, fixture, inputs_for, matmul, narrowest, plan_for, ranges_of

from lampq.adapters.tflite import read
from lampq.adapters.tflite.recipe import recipe
from lampq.core.values.errors import AdapterError

pytestmark = pytest.mark.usefixtures("weights_of_any_size")


def scopes(path):
    """(kind of operator, its outputs' names each with a semicolon, its weight's shape) by the generated
    classes."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    for graph in model.subgraphs:
        for op in graph.operators:
            name = names[model.operatorCodes[op.opcodeIndex].builtinCode]
            scope = "".join(graph.tensors[t].name.decode() + ";" for t in op.outputs)
            shape = tuple(graph.tensors[op.inputs[1]].shape) if len(op.inputs) > 1 else ()
            yield name, scope, shape


def chosen(rules, name, scope):
    """The tool's rule: the last whose operation is that of the operator and whose expression is found in its
    scope."""
    found = [rule for rule in rules if rule["operation"] == name and re.search(rule["regex"], scope)]
    return found[-1] if found else None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vit_partly_int8"])
def test_every_layer_gets_its_width_and_nothing_else_gets_one(name):
    model = read(fixture(name))
    widths = {layer.name: (2, 4, 8)[index % 3] for index, layer in enumerate(model.layers())}
    plan = plan_for(model, lambda layer: narrowest(model, widths[layer.name])(layer))
    rules = recipe(model, plan)
    expected = {layer.name: layer.weight_bits for layer in plan.layers}
    sites = {(w.name, s.subgraph, s.op) for w in model.variant.opened.weights.values() for s in w.sites}
    matched = [(kind, scope) for kind, scope, _ in scopes(fixture(name)) if chosen(rules, kind, scope)]
    assert len(matched) == len(sites) == len(rules)
    for (weight, subgraph, op), rule in zip(
        ((w.name, s.subgraph, s.op) for w in model.variant.opened.weights.values() for s in w.sites),
        rules,
        strict=True,
    ):
        graph = model.variant.opened.graph.subgraphs[subgraph]
        scope = "".join(graph.tensors[t].name.decode() + ";" for t in graph.ops[op].outputs)
        assert chosen(rules, graph.ops[op].name, scope) is rule
        assert rule["op_config"]["weight_tensor_config"]["num_bits"] == expected[weight]
        assert rule["op_config"]["weight_tensor_config"]["granularity"] == "CHANNELWISE"
        numbers = graph.ops[op].name != "FULLY_CONNECTED" and expected[weight] == 2
        numbers |= graph.ops[op].name == "DEPTHWISE_CONV_2D" and expected[weight] == 4
        assert rule["op_config"]["explicit_dequantize"] == numbers


def test_fixed_activations_are_asked_for():
    model = read(fixture("vit"))
    batch = inputs_for(model, 2)
    rules = recipe(model, plan_for(model, lambda _: 8, ranges=ranges_of(model, batch)))
    assert all(rule["op_config"]["activation_tensor_config"]["num_bits"] == 8 for rule in rules)


def test_what_the_tool_cannot_do_is_refused(tmp_path):
    weight = np.ones((8, 4), np.float32)
    model = read(matmul(tmp_path / "m.tflite", weight, adjoint=False))
    with pytest.raises(AdapterError, match="in 8 bits only"):
        recipe(model, plan_for(model, lambda _: 4))
    b = Builder()
    x, y, z = b.tensor("x", (1, 4)), b.tensor("same", (1, 4)), b.tensor("same", (1, 4))
    for source, target in ((x, y), (y, z)):
        w = b.tensor(f"w{target}", (4, 4), np.full((4, 4), target, np.float32))
        b.op("FULLY_CONNECTED", [source, w, -1], [target], "FullyConnectedOptions", version=6)
    model = read(b.write(tmp_path / "n.tflite", [x], [z]))
    with pytest.raises(AdapterError, match="2 operators are called"):
        recipe(model, plan_for(model, lambda _: 4))
