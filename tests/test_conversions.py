"""Plans as configurations of other tools and back, judged by what the tools' own readers and the plans say."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torchvision_ops  # noqa: F401
from foreign_plans import OF_NAMES, OF_NODES, facts, given_plan, mixed_plan, onnx_model, profile, tflite_model  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_graphs import make_plan
from onnx_models import normal
from records import make_profile, pair_profile
from torch_models import read_named

from lampq.conversions import FORMATS, exports, find, imports
from lampq.conversions.target import Target
from lampq.core.values.blocks import row_block
from lampq.core.values.errors import PlanError
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.verbs.convert import convert
from lampq.verbs.plan import plan as make_best

OF_BLOCKS = ("torchao", "compressed-tensors", "ort-nbits")


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


def test_fitting_a_profile_of_pairs_leaves_layers_out_of_all_its_arrays():
    table = with_convolution(pair_profile(2))
    ranges = np.tile(np.array([-1.0, 1.0]), (*table.kl.shape, 1))
    table = table.with_tables(joint_fisher=table.kl * 2, activation_range=ranges)
    plan = make_best(table, average_bits=4)
    _, fitted = convert(plan, "torchao", profile=table, fit=True, partial=True)
    assert [layer.name for layer in fitted.layers] == [layer.name for layer in plan.layers[1:]]


def test_a_part_of_a_profile_has_a_part_of_every_array():
    table = pair_profile(2)
    ranges = np.random.default_rng(0).normal(size=(*table.kl.shape, 2))
    table = table.with_tables(
        joint_fisher=table.kl * 2,
        activation_range=np.sort(ranges),
        gram=np.random.default_rng(1).normal(size=table.kl.shape * 2),
    )
    rows, columns = [0, 2], [1, 3, 4]
    part = table.part(rows)
    assert part.layers == (table.layers[0], table.layers[2])
    for name in ("weight_error", "payload_bytes", "kl", "joint_fisher", "activation_range"):
        array = table.array(name)
        np.testing.assert_array_equal(part.array(name), array[rows])
        np.testing.assert_array_equal(table.narrowed(columns).array(name), array[:, columns])
    gram = table.array("gram")
    np.testing.assert_array_equal(part.array("gram"), gram[rows][:, :, rows])
    np.testing.assert_array_equal(table.narrowed(columns).array("gram"), gram[:, columns][:, :, :, columns])
    assert set(part.tables) == set(table.tables)


def test_what_a_plan_says_beside_widths_is_noted_as_left_out(profile):
    plan = make_best(profile, average_bits=4)
    assert not [note for note in convert(plan, "csv")[1].notes if "told widths alone" in note]
    formed = dataclasses.replace(plan, rounding="low_rank")
    (note,) = [note for note in convert(formed, "csv")[1].notes if "told widths alone" in note]
    assert note.endswith("and not of the form of weights low_rank")
    rewrite = NormRewrite(norm="blocks.0.norm1", kind="mean", ratio=(1.0, 2.0), shift=(0.0, 0.0))
    refined = dataclasses.replace(plan, rounding="inputs", refine=8, rewrites=(rewrite,))
    (note,) = [note for note in convert(refined, "csv")[1].notes if "told widths alone" in note]
    assert "codes chosen by rounding inputs, then refined; rewritten normalizations (blocks.0.norm1)" in note
