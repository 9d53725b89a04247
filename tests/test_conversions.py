"""Plans as configurations of other tools and back, judged by what the tools' own readers and the plans say."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_graphs import make_plan
from onnx_models import graph, mlp, normal, saved
from records import make_profile
from tflite_models import fixture
from tflite_models import plan_for as tflite_plan
from torch_models import read_named

from lampq import adapters
from lampq.cli import main
from lampq.conversions import FORMATS, exports, find, imports
from lampq.conversions.target import Target
from lampq.core.blocks import row_block
from lampq.core.errors import PlanError
from lampq.core.plan import Plan
from lampq.verbs.convert import convert, read_foreign
from lampq.verbs.plan import plan as make_best

OF_NAMES = ("json", "csv", "torchao", "compressed-tensors", "quanto", "modelopt", "aimet")
OF_BLOCKS = ("torchao", "compressed-tensors", "ort-nbits")
OF_NODES = ("ort-nbits", "ort-qdq", "nncf", "aimet")


@pytest.fixture(scope="module")
def profile():
    return make_profile(0)


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory):
    built = mlp(5)
    for index, node in enumerate(built.graph.node):
        # ONNX Runtime's quantizer sorts nodes by name.
        node.name = node.name or f"node{index}"
    return adapters.read(saved(built, tmp_path_factory.mktemp("onnx")))


@pytest.fixture(scope="module")
def tflite_model():
    return adapters.read(fixture("vit"))


def given_plan(target, widths):
    named = {
        layer.name: width for layer, width in zip(target.layers, widths, strict=True) if width is not None
    }
    return imports.given_plan(named, target, notes=())


def facts(plan):
    return [(layer.name, layer.weight_bits, layer.activation_bits) for layer in plan.layers]


def draw_widths(data, tool, target):
    """For every layer widths that the tool can express; some layers are left out."""
    form = find(tool)
    drawn = []
    for layer in target.layers:
        weights = st.sampled_from(exports.weight_bits(form, layer, target))
        pair = st.tuples(weights, st.sampled_from(form.ACTIVATION_BITS))
        drawn.append(data.draw(st.none() | pair if len(drawn) % 3 else pair))
    return drawn


def named_layers(plan, target):
    return [layer for layer in target.layers if layer.name in plan.widths]


def round_trip(data, tool, target):
    if tool in OF_BLOCKS:
        target = target.with_block(data.draw(st.sampled_from([None, 8])))
    plan = given_plan(target, draw_widths(data, tool, target))
    text = exports.export(plan, tool, target)
    again = imports.import_plan(text, tool, target)
    assert facts(again) == facts(plan)
    if any(row_block(layer.shape, layer.channel_axis, target.block) for layer in named_layers(plan, target)):
        assert again.block == plan.block
        assert again.payload_bytes == plan.payload_bytes
    elif target.block is None:
        assert again.payload_bytes == plan.payload_bytes
    # And once more through a file, where JSON and CSV allow nothing but text.
    assert exports.export(again, tool, target) == text


@pytest.mark.parametrize("tool", OF_NAMES)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trips_lose_nothing_that_the_tool_can_express(tool, profile, data):
    round_trip(data, tool, Target.of(profile))


@pytest.mark.parametrize("tool", OF_NODES)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trips_by_node(tool, onnx_model, data):
    round_trip(data, tool, Target.of(onnx_model))


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trips_of_recipes(tflite_model, data):
    round_trip(data, "ai-edge", Target.of(tflite_model))


def test_every_tool_is_tried():
    assert {*OF_NAMES, *OF_NODES, "ai-edge"} == set(FORMATS)
    assert all(find(tool).TITLE for tool in FORMATS)


# What the tools' own readers make of it.


class Linears(torch.nn.Module):
    """The layers of `make_profile` as linear modules of the same names."""

    def __init__(self, layers):
        super().__init__()
        self.blocks = torch.nn.ModuleList()
        for layer in layers:
            block = torch.nn.Module()
            block.add_module(layer.name.split(".")[2], torch.nn.Linear(layer.shape[1], layer.shape[0]))
            self.blocks.append(block)


def mixed_plan(source, widths, activations=(None,)):
    target = Target.of(source)
    count = len(target.layers)
    return given_plan(
        target, [(widths[i % len(widths)], activations[i % len(activations)]) for i in range(count)]
    )


def test_torchao_reads_and_applies_it(profile):
    from torchao.core.config import config_from_dict
    from torchao.quantization import quantize_

    plan = mixed_plan(profile, (2, 4, 8, 3), (None, 8, None))
    config = config_from_dict(json.loads(convert(plan, "torchao")[0]))
    module = Linears(profile.layers)
    quantize_(module, config, filter_fn=None)
    for layer in plan.layers:
        weight = module.get_submodule(layer.name).weight
        dtype = str(config.fqn_to_config[layer.name].weight_dtype)
        assert dtype == f"torch.int{layer.weight_bits}"
        assert type(weight) is not torch.nn.Parameter
        rows = weight.dequantize().detach()
        assert max(len(row.unique()) for row in rows) <= 2**layer.weight_bits


def test_modules_of_a_model_are_named_and_packed_parameters_left_out():
    model, _ = read_named("packed")
    plan = make_plan(model, 4)
    with pytest.raises(PlanError, match="in_proj: a packed parameter of MultiheadAttention"):
        convert(plan, "torchao", model=model)
    entries = json.loads(convert(plan, "torchao", model=model, partial=True)[0])["_data"]["fqn_to_config"]
    assert set(entries) == {
        f"transformer.layers.{i}.{part}"
        for i in range(2)
        for part in ("self_attn.out_proj", "linear1", "linear2")
    } | {"head"}


def test_compressed_tensors_reads_and_applies_it(profile):
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    plan = mixed_plan(profile, (2, 4, 8, 3), (None, 8, None))
    config = QuantizationConfig(**json.loads(convert(plan, "compressed-tensors")[0]))
    module = Linears(profile.layers)
    apply_quantization_config(module, config)
    for layer in plan.layers:
        scheme = module.get_submodule(layer.name).quantization_scheme
        assert scheme.weights.num_bits == layer.weight_bits
        assert (scheme.input_activations is not None) == (layer.activation_bits is not None)


def test_onnx_runtime_quantizes_by_its_weight_config(onnx_model, tmp_path):
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer, RTNWeightOnlyQuantConfig

    plan = make_plan(onnx_model, dict(zip((f"fc{i}" for i in range(5)), (4, 8, 8, 4, 8), strict=True)))
    config = json.loads(convert(plan, "ort-nbits", model=onnx_model)[0])
    quantizer = MatMulNBitsQuantizer(
        onnx.load(onnx_model.path),
        block_size=16,
        is_symmetric=True,
        algo_config=RTNWeightOnlyQuantConfig(customized_weight_config=config),
    )
    quantizer.process()
    found = {
        node.name: next(a.i for a in node.attribute if a.name == "bits")
        for node in quantizer.model.model.graph.node
        if node.op_type == "MatMulNBits"
    }
    assert sorted(found.values()) == sorted(plan.widths.values())


def test_onnx_runtime_takes_its_overrides(onnx_model, tmp_path):
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"x": normal(4, 16)}])

        def get_next(self):
            return next(self.batches, None)

    plan = make_plan(onnx_model, {"fc0": 4, "fc1": 8, "fc2": 4, "fc3": 8, "fc4": 4})
    overrides = json.loads(convert(plan, "ort-qdq", model=onnx_model)[0])
    for parts in overrides["TensorQuantOverrides"].values():
        for part in parts:
            part["quant_type"] = QuantType[part["quant_type"]]
    quantize_static(
        onnx_model.path,
        tmp_path / "q.onnx",
        Reader(),
        extra_options={**overrides, "UseQDQContribOps": True},
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    types = {
        i.name.removesuffix("_quantized"): i.data_type
        for i in onnx.load(tmp_path / "q.onnx").graph.initializer
        if i.name.endswith("_quantized")
    }
    bits = {onnx.TensorProto.INT4: 4, onnx.TensorProto.INT8: 8}
    for layer in plan.layers:
        assert bits[types[f"{layer.name}.weight"]] == layer.weight_bits


def test_aimet_ranges_fit_the_widths(profile):
    plan = mixed_plan(profile, (2, 3, 8))
    found = json.loads(convert(plan, "aimet", profile=profile)[0])["param_encodings"]
    for layer, measured in zip(plan.layers, profile.layers, strict=True):
        channels = found[f"{layer.name}.weight"]
        assert len(channels) == measured.channels
        for channel, low, high in zip(channels, measured.weight.min, measured.weight.max, strict=True):
            steps = 2**layer.weight_bits - 1
            assert channel["max"] - channel["min"] == pytest.approx(steps * channel["scale"])
            assert channel["max"] == pytest.approx(max(-low, high))
            assert channel["offset"] == -(2 ** (layer.weight_bits - 1))


# What cannot be expressed.


def test_widths_that_a_tool_lacks_name_their_layers(profile):
    plan = mixed_plan(profile, (4, 3, 8))
    with pytest.raises(PlanError, match=r"2, 4, 8 bits.*blocks\.1\.qkv 3 bits.*--fit"):
        convert(plan, "quanto")


def test_inputs_that_a_tool_lacks_name_their_layers(profile):
    with pytest.raises(PlanError, match=r"input of blocks\.0\.patch_embed 8 bits"):
        convert(mixed_plan(profile, (4,), (8,)), "aimet", profile=profile)


def with_convolution(profile):
    """The first layer as a convolution."""
    first = profile.layers[0]
    shape = (first.shape[0], first.shape[1], 1, 1)
    return dataclasses.replace(profile, layers=(dataclasses.replace(first, shape=shape), *profile.layers[1:]))


def test_scales_of_blocks_that_a_tool_lacks_name_their_layers(profile):
    target = Target.of(profile).with_block(8)
    plan = imports.given_plan({layer.name: (4, None) for layer in target.layers}, target, notes=())
    with pytest.raises(PlanError, match=r"cannot express blocks\.\d\..* scales of 8 weights"):
        convert(plan, "quanto")


def test_layers_that_a_tool_has_no_place_for(profile):
    plan = mixed_plan(with_convolution(profile), (4,))
    with pytest.raises(
        PlanError, match=r"no place for 1 layers \(blocks\.0\.patch_embed: no Linear\).*--partial"
    ):
        convert(plan, "torchao")
    entries = json.loads(convert(plan, "torchao", partial=True)[0])["_data"]["fqn_to_config"]
    assert set(entries) == {layer.name for layer in plan.layers[1:]}


@pytest.mark.parametrize("tool", ["quanto", "ai-edge", "nncf"])
def test_fitting_solves_again_within_the_budget(tool, profile, onnx_model, tflite_model, request):
    import lampq

    if tool == "quanto":
        model, table = None, profile
    else:
        model = onnx_model if tool == "nncf" else tflite_model
        table = lampq.profile(model, None, bits=(2, 4, 8) if tool == "ai-edge" else (2, 3, 4, 8))
    budget = 4.5
    plan = make_best(table, average_bits=budget)
    text, fitted = convert(plan, tool, model=model, profile=table, fit=True)
    form = find(tool)
    assert set(fitted.widths.values()) <= set(form.WEIGHT_BITS)
    assert fitted.average_bits <= budget
    target = Target.of(model or table)
    assert facts(imports.import_plan(text, tool, target)) == facts(fitted)


def test_a_fitted_plan_is_the_best_of_those_the_tool_can_express():
    small = make_profile(3, kinds=("qkv", "proj", "fc1", "fc2"))
    plan = make_best(small, average_bits=4, mode="kl")
    _, fitted = convert(plan, "quanto", profile=small, fit=True)
    columns = [small.weight_bits.tolist().index(bits) for bits in (2, 4, 8)]
    limit = 4 * small.sizes.sum()
    best = min(
        small.kl[range(4), list(choice)].sum()
        for choice in np.array(np.meshgrid(*[columns] * 4)).reshape(4, -1).T
        if (small.sizes * small.weight_bits[list(choice)]).sum() <= limit
    )
    assert fitted.predicted_kl == pytest.approx(best)


def test_fitting_needs_a_profile_of_the_same_model(profile):
    plan = mixed_plan(profile, (3,))
    with pytest.raises(PlanError, match="takes a profile"):
        convert(plan, "quanto", fit=True)
    with pytest.raises(PlanError, match="another model"):
        convert(plan, "quanto", fit=True, profile=make_profile(1))


def test_layers_without_a_place_stay_float_when_fitting(profile):
    table = with_convolution(profile)
    plan = make_best(table, average_bits=4)
    with pytest.raises(PlanError, match="no place for"):
        convert(plan, "torchao", profile=table, fit=True)
    _, fitted = convert(plan, "torchao", profile=table, fit=True, partial=True)
    assert len(fitted.layers) == len(plan.layers) - 1
    assert fitted.rest_bytes == plan.rest_bytes + 4 * table.layers[0].size


# What comes in from outside.


@pytest.mark.parametrize("tool", OF_NAMES)
def test_a_configuration_for_another_model_is_refused(tool, profile, tmp_path):
    other = make_profile(1, kinds=("qkv", "head"))
    renamed = dataclasses.replace(
        other, layers=tuple(dataclasses.replace(x, name=f"other.{x.kind}") for x in other.layers)
    )
    path = tmp_path / "config"
    path.write_text(convert(mixed_plan(renamed, (4,)), tool, profile=renamed)[0])
    with pytest.raises(PlanError, match="another model"):
        read_foreign(path, tool, profile)


def test_strange_names_are_refused_and_can_be_left_out(profile, tmp_path):
    path = tmp_path / "widths.json"
    path.write_text('{"blocks.1.qkv": 3, "lm_head": 8}')
    with pytest.raises(
        PlanError, match=r"widths\.json: 1 names .* no layers of the profile \(lm_head\).*--partial"
    ):
        read_foreign(path, "json", profile)
    plan = read_foreign(path, "json", profile, partial=True)
    assert plan.widths == {"blocks.1.qkv": 3}
    assert any("lm_head" in note for note in plan.notes)
    assert any("9 layers stay float" in note for note in plan.notes)


UNKNOWN = {
    "json": ({"blocks.1.qkv": {"weight_bits": 4, "owner": "me"}}, "blocks.1.qkv"),
    "torchao": (
        {
            "_type": "FqnToConfig",
            "_version": 1,
            "_data": {
                "fqn_to_config": {
                    "re:blocks.*": {
                        "_type": "IntxWeightOnlyConfig",
                        "_data": {"weight_dtype": {"_type": "torch.dtype", "_data": "int4"}},
                    }
                },
                "version": 7,
            },
        },
        "_data",
    ),
    "compressed-tensors": (
        {
            "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}},
            "kv_cache_scheme": {"num_bits": 8},
        },
        "kv_cache_scheme",
    ),
    "quanto": ({"blocks.1.qkv": {"weights": "qint4"}, "norm": {"weights": "none"}}, "norm"),
    "modelopt": (
        {
            "quant_cfg": [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 4}}],
            "algorithm": "awq_lite",
        },
        "algorithm",
    ),
    "aimet": (
        {"param_encodings": [{"name": "blocks.1.qkv.weight", "bw": 4, "dtype": "INT"}], "producer": "x"},
        "producer",
    ),
}


@pytest.mark.parametrize("tool", UNKNOWN)
def test_unknown_keys_are_kept_reported_and_written_again(tool, profile, tmp_path):
    data, key = UNKNOWN[tool]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    plan = read_foreign(path, tool, profile)
    assert plan.widths["blocks.1.qkv"] == 4
    assert any(key in note and "kept" in note for note in plan.notes)
    plan.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    if tool != "json":
        assert key in convert(again, tool, profile=profile)[0]


def test_tables_of_other_programs(profile, tmp_path):
    path = tmp_path / "bits.csv"
    path.write_text("\ufeffName,Bits,owner\r\nblocks.1.qkv,3,me\r\nblocks.2.proj,5,\r\n", encoding="utf-8")
    plan = read_foreign(path, "csv", profile)
    assert plan.widths == {"blocks.1.qkv": 3, "blocks.2.proj": 5}
    assert plan.provenance["foreign"] == {"csv": {"owner": {"blocks.1.qkv": "me"}}}


def test_names_count_before_patterns_and_patterns_before_classes(profile):
    def group(bits, *targets):
        return {"targets": list(targets), "weights": {"num_bits": bits, "type": "int"}}

    config = {
        "config_groups": {
            "a": group(4, "Linear"),
            "b": group(2, "blocks.1.qkv"),
            "c": group(3, "re:blocks[.][12].*"),
        },
        "ignore": ["blocks.0.patch_embed"],
    }
    plan = imports.import_plan(json.dumps(config), "compressed-tensors", Target.of(profile))
    assert "blocks.0.patch_embed" not in plan.widths
    assert [plan.widths[f"blocks.{n}"] for n in ("1.qkv", "2.proj", "3.fc1")] == [2, 3, 4]


def test_places_of_one_weight_must_agree(tmp_path):
    w = normal(16, 16) / 4
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="first"),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w"], ["logits"], name="second"),
    ]
    built = graph(nodes, {"w": w}, inputs={"x": ["n", 16]}, outputs={"logits": ["n", 16]})
    model = adapters.read(saved(built, tmp_path))
    text = convert(make_plan(model, 4), "ort-nbits", model=model)[0]
    assert set(json.loads(text)) == {"first", "second"}
    with pytest.raises(PlanError, match="different widths"):
        imports.import_plan('{"first": {"bits": 4}, "second": {"bits": 8}}', "ort-nbits", Target.of(model))


BAD = {
    "json": [
        "[]",
        "{",
        '{"blocks.1.qkv": 9}',
        '{"blocks.1.qkv": true}',
        '{"blocks.1.qkv": {}}',
        "[" * 100_000,
    ],
    "csv": [
        "",
        "a,b\n1,2\n",
        "layer,bits\nblocks.1.qkv\n",
        "layer,bits\nblocks.1.qkv,four\n",
        'layer,bits\n"x',
    ],
    "torchao": [
        "{}",
        '{"_type": "FqnToConfig", "_data": {"fqn_to_config": {"blocks.1.qkv": {"_type": "Float8"}}}}',
    ],
    "compressed-tensors": [
        "{}",
        '{"config_groups": {"g": {"targets": "Linear", "weights": {"num_bits": 4}}}}',
        '{"config_groups": {"g": {"targets": ["re:("], "weights": {"num_bits": 4}}}}',
        '{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float"}}}}',
    ],
    "quanto": ['{"blocks.1.qkv": {"weights": "qfloat8"}}', '{"blocks.1.qkv": 4}'],
    "modelopt": ["{}", '{"quant_cfg": [{"quantizer_name": "*", "cfg": {"num_bits": [4, 3]}}]}'],
    "aimet": ["{}", '{"param_encodings": {"blocks.1.qkv.weight": [{"bitwidth": 4}, {"bitwidth": 8}]}}'],
}


@pytest.mark.parametrize(("tool", "text"), [(tool, text) for tool, texts in BAD.items() for text in texts])
def test_malformed_configurations(tool, text, profile):
    with pytest.raises(PlanError):
        imports.import_plan(text, tool, Target.of(profile))


@pytest.mark.parametrize("tool", ["ai-edge", "ort-nbits", "ort-qdq", "nncf"])
def test_configurations_of_files_need_the_file(tool, profile):
    with pytest.raises(PlanError, match="--model"):
        convert(mixed_plan(profile, (4,)), tool)


# The command line.


@pytest.fixture
def work(profile, tmp_path):
    profile.write(tmp_path / "profile.json")
    mixed_plan(profile, (2, 3, 8)).write(tmp_path / "plan.json")
    return tmp_path


def run(capfd, *words):
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


def test_out_and_in_again(work, capfd):
    code, out, _ = run(capfd, "convert", work / "plan.json", "--to", "modelopt", "-o", work / "cfg.json")
    assert (code, out.strip()) == (0, str(work / "cfg.json"))
    words = ("convert", work / "cfg.json", "--from", "modelopt", "--plan", work / "plan.json")
    code, out, _ = run(capfd, *words, "-o", work / "again.json", "--json", "--quiet")
    assert code == 0 and json.loads(out)["layers"] == 10
    assert facts(Plan.read(work / "again.json")) == facts(Plan.read(work / "plan.json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan.json", "--to", "quanto"], "cannot express"),
        (["plan.json", "--to", "quanto", "--fit"], "--profile"),
        (["plan.json", "--to", "json", "--plan", "plan.json"], "--plan goes with --from"),
        (["missing.json", "--from", "json", "--plan", "plan.json"], "no such file"),
        (["plan.json", "--from", "json"], "--model"),
        (["plan.json", "--from", "json", "--plan", "plan.json", "--profile", "profile.json"], "give one of"),
        (["plan.json"], "--to TOOL"),
        (["missing.onnx"], "no such file"),
        (["plan.json", "--to", "ort-nbits"], "--model"),
        (["profile.npz", "--from", "csv", "--plan", "plan.json"], "cannot be read as text"),
    ],
)
def test_bad_requests_leave_nothing(words, message, work, capfd, monkeypatch):
    monkeypatch.chdir(work)
    code, out, err = run(capfd, "convert", *words, "-o", "out.json")
    assert code == 2 and message in err and len(err.splitlines()) == 1 and not out
    assert not (work / "out.json").exists()


def test_existing_outputs_are_kept(work, capfd):
    words = ("convert", work / "plan.json", "--to", "csv", "--quiet", "-o", work / "profile.json")
    code, _, err = run(capfd, *words)
    assert code == 2 and "--force" in err
    assert run(capfd, *words, "--force")[0] == 0


def test_recipes_are_those_of_the_adapter(tflite_model):
    from lampq.adapters.tflite.recipe import recipe

    plan = tflite_plan(tflite_model, lambda layer: 8)
    assert json.loads(convert(plan, "ai-edge", model=tflite_model)[0]) == recipe(tflite_model, plan)


JUNK = (None, True, 0, -3, 10**400, 1.5, "", "re:(", "*", [], {}, [[]], {"_data": None}, ["x"], {"x": 1})


def damaged(value, rng):
    """The same JSON value with one place of it replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        return {**value, key: damaged(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        index = int(rng.integers(len(value)))
        return [*value[:index], damaged(value[index], rng), *value[index + 1 :]]
    return JUNK[rng.integers(len(JUNK))]


@pytest.mark.parametrize("tool", sorted(set(FORMATS) - {"csv"}))
def test_damaged_configurations_are_read_or_refused(tool, profile, onnx_model, tflite_model):
    rng = np.random.default_rng(0)
    source = tflite_model if tool == "ai-edge" else onnx_model if tool in OF_NODES[:3] else profile
    target = Target.of(source)
    form = find(tool)
    plan = given_plan(target, [(max(form.WEIGHT_BITS), form.ACTIVATION_BITS[-1])] * len(target.layers))
    data = json.loads(exports.export(plan, tool, target))
    refused = 0
    for _ in range(120):
        text = json.dumps(damaged(data, rng))
        try:
            again = imports.import_plan(text, tool, target, partial=True)
            exports.export(again, tool, target)
        except PlanError:
            refused += 1
    assert refused > 5
