"""Written files against NumPy, against the fake-quant model, and against the plan's bytes."""

import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_models import (
    NAMES,
    Builder,
    convolution,
    dequantized,
    fixture,
    inputs_for,
    narrowest,
    opcodes,
    plan_for,
    ranges_of,
    relative,
    run_directly,
    tensor_types,
    without,
)

from lampq.adapters.tflite import bitpacking, containers, operands, quantize, read, verify
from lampq.adapters.tflite.edit import Draft
from lampq.adapters.tflite.flatbuffer import encode
from lampq.adapters.tflite.stored import stored
from lampq.core.measuring.measure import measure_weight_error
from lampq.core.quantizing.quantizer import as_rows
from lampq.core.quantizing.quantizer import quantize as quantize_rows
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.errors import AdapterError, PlanError
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.option import Option, all_options

pytestmark = pytest.mark.usefixtures("weights_of_any_size")


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_as_large_as_the_plan_says(name, bits, tmp_path):
    model = read(fixture(name))
    plan = plan_for(model, narrowest(model, bits))
    out = tmp_path / "q.tflite"
    model.write(plan, out)
    assert out.stat().st_size == plan.total_bytes
    written = read(out)
    assert written.layers() == ()
    stored = {layer.name: layer.weight_bits for layer in plan.layers}
    for other, width in written.stored_bits().items():
        assert stored.get(other, 8) == width[0]
    assert set(stored) <= set(written.stored_bits())


def fixed_width(layer):
    """The least width whose codes are multiplied by int8 inputs: depthwise convolutions have 8 bits alone."""
    return 8 if layer.shape[0] == 1 and len(layer.shape) == 4 else 4


@pytest.mark.parametrize("act_bits", [8, 16])
@pytest.mark.parametrize("name", ["vit", "post_norm", "mobile_vit", "conv_any_batch"])
def test_so_is_a_file_with_fixed_activations(name, act_bits, tmp_path):
    """Its operators, scales and biases are part of what the plan counts; those of some layers are never more."""
    model, out = read(fixture(name)), tmp_path / "q.tflite"
    batch = inputs_for(model, 4)
    plan = plan_for(model, fixed_width, ranges=ranges_of(model, batch), act_bits=act_bits)
    options = [Option(weight_bits=bits, activation_bits=act_bits) for bits in (4, 8)]
    overhead = model.overhead(model.layers(), options, "bitplane")
    room = dataclasses.replace(plan, rest_bytes=overhead.rest_bytes)
    model.write(room, out, calibration=batch)
    assert out.stat().st_size == room.total_bytes
    some = tuple(
        layer if index % 2 else dataclasses.replace(layer, activation_bits=None, activation_range=None)
        for index, layer in enumerate(plan.layers)
    )
    model.write(dataclasses.replace(room, layers=some), out, calibration=batch)
    assert out.stat().st_size <= room.total_bytes


@pytest.mark.parametrize("name", NAMES)
def test_a_mixed_file_computes_what_the_fake_quant_model_does(name, tmp_path):
    model = read(fixture(name))
    widths = {layer.name: (2, 4, 8)[index % 3] for index, layer in enumerate(model.layers())}

    def bits(layer):
        return narrowest(model, widths[layer.name])(layer)

    plan = plan_for(model, bits)
    out = tmp_path / "q.tflite"
    model.write(plan, out)
    assert out.stat().st_size == plan.total_bytes
    batch = inputs_for(model, 6, seed=3)
    reference = np.asarray(model.with_weights(dequantized(model, bits)).run(batch))
    assert relative(np.asarray(read(out).run(batch)), reference) < 0.03
    if name not in ("conv_batch_3", "two_signatures"):
        assert relative(run_directly(out, batch, delegates=False), reference) < 0.03


@pytest.mark.parametrize(
    "name", ["vit", "vit_float16", "mobile_vit", "mobile_vit_nhwc", "post_norm", "conv_any_batch"]
)
def test_fixed_int8_activations_compute_what_the_fake_quant_model_does(name, tmp_path):
    model = read(fixture(name))
    batch = inputs_for(model, 24)
    plan = plan_for(model, narrowest(model, 4), ranges=ranges_of(model, batch))
    out = tmp_path / "q.tflite"
    model.write(plan, out, calibration=batch)
    reference = np.asarray(model.with_weights(dequantized(model, narrowest(model, 4))).run(batch))
    assert relative(run_directly(out, batch), reference) < 0.05
    assert ("QUANTIZE", 1) in opcodes(out)
    assert "INT32" in tensor_types(out)


@pytest.mark.parametrize(
    "name", ["vit", "vit_float16", "mobile_vit", "mobile_vit_nhwc", "post_norm", "conv_any_batch"]
)
def test_int16_activations_lose_next_to_nothing(name, tmp_path):
    """A hundred times less than int8 ones may: what the file computes is what its weights' codes say."""
    model = read(fixture(name))
    batch = inputs_for(model, 24)
    plan = plan_for(model, fixed_width, ranges=ranges_of(model, batch), act_bits=16)
    out = tmp_path / "q.tflite"
    model.write(plan, out, calibration=batch)
    reference = np.asarray(model.with_weights(dequantized(model, fixed_width)).run(batch))
    assert relative(run_directly(out, batch), reference) < 1e-3
    assert {("QUANTIZE", 2), ("DEQUANTIZE", 3)} <= opcodes(out)
    assert {weight.activation_bits for weight in stored(read(out))} == {16}


def test_a_uniform_quantizer_of_an_input_is_a_range_told_otherwise(tmp_path):
    model = read(fixture("vit"))
    batch = inputs_for(model, 8)
    plan = plan_for(model, narrowest(model, 4), ranges=ranges_of(model, batch))
    told = tuple(
        layer
        if layer.activation_range is None
        else dataclasses.replace(
            layer,
            activation_range=None,
            quantizer=ActivationGrid.from_range(*layer.activation_range).fitted(),
        )
        for layer in plan.layers
    )
    model.write(plan, tmp_path / "range.tflite", calibration=batch)
    model.write(dataclasses.replace(plan, layers=told), tmp_path / "told.tflite", calibration=batch)
    assert (tmp_path / "told.tflite").read_bytes() == (tmp_path / "range.tflite").read_bytes()


def test_layers_that_read_the_same_input_share_its_int8_form(tmp_path):
    rng = np.random.default_rng(7)
    b = Builder()
    x, z = b.tensor("x", (1, 8)), b.tensor("z", (1, 4))
    parts = []
    for name in ("q", "k"):
        w, y = (
            b.tensor(f"net/{name}/MatMul", (4, 8), rng.normal(size=(4, 8)).astype(np.float32)),
            b.tensor(name, (1, 4)),
        )
        b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
        parts.append(y)
    b.op("ADD", parts, [z], "AddOptions")
    model = read(b.write(tmp_path / "m.tflite", [x], [z]))
    batch = inputs_for(model, 8)
    out = tmp_path / "q.tflite"
    model.write(plan_for(model, lambda _: 8, ranges=ranges_of(model, batch)), out, calibration=batch)
    ops = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(out.read_bytes(), 0)).subgraphs[0].operators
    assert len(ops) == 1 + 2 + 2 + 1
    assert relative(run_directly(out, batch), run_directly(tmp_path / "m.tflite", batch)) < 0.03


def test_codes_never_use_the_values_that_kernels_multiply_wrongly():
    model = read(fixture("vit"))
    for layer in model.layers():
        rows = as_rows(model.weight(layer.name), layer.channel_axis)
        assert quantize_rows(rows, 4, grid=model.grid).integers().min() >= -7
        assert quantize_rows(rows, 8, grid=model.grid).integers().min() >= -127


def test_the_cost_table_of_the_format(tmp_path):
    model = read(fixture("mobile_vit"))
    layers = {layer.name: layer for layer in model.layers()}
    possible = {
        name: [b for b in range(1, 9) if model.payload_bytes(layer, b, "bitplane") is not None]
        for name, layer in layers.items()
    }
    assert set(map(tuple, possible.values())) == {(2, 4, 8)}
    # 96 x 32 codes behind a length, and 96 scales behind another, in slots of 16 bytes.
    qkv = layers["transformer.attn.qkv"]
    assert [model.payload_bytes(qkv, b, "bitplane") for b in (2, 4, 8)] == [784 + 400, 1552 + 400, 3088 + 400]
    assert [model.payload_bytes(qkv, b, "int8") for b in (2, 3, 8)] == [3088 + 400] * 3
    with pytest.raises(AdapterError, match="container 'x'"):
        model.payload_bytes(qkv, 4, "x")


def test_plans_of_other_formats_take_the_next_container(tmp_path):
    """Three bits fit four, five to seven fit eight."""
    model = read(fixture("mobile_vit"))
    widths = (2, 3, 5, 6, 7)
    bits = {layer.name: widths[index % 5] for index, layer in enumerate(model.layers())}
    out = tmp_path / "q.tflite"
    model.write(plan_for(model, lambda layer: bits[layer.name]), out)
    batch = inputs_for(model, 4)
    reference = np.asarray(model.with_weights(dequantized(model, lambda layer: bits[layer.name])).run(batch))
    assert relative(np.asarray(read(out).run(batch)), reference) < 0.02
    assert read(out).stored_bits()["block.depthwise"] == (8, "int8")
    assert read(out).stored_bits()["stem"] == (2, "bitplane")


def test_bytes_as_containers(tmp_path):
    model = read(fixture("vit"))
    plan = plan_for(model, lambda _: 3, container="int8")
    out = tmp_path / "q.tflite"
    model.write(plan, out)
    assert out.stat().st_size == plan.total_bytes
    assert {bits for bits, _ in read(out).stored_bits().values()} == {8}


def test_a_plan_for_some_layers_leaves_the_others_as_they_are(tmp_path):
    model = read(fixture("vit"))
    plan = without(plan_for(model, lambda _: 4 if _.kind != "x" else 8), {"head", "blocks.0.attn.qkv"})
    out = tmp_path / "q.tflite"
    model.write(plan, out)
    assert [layer.name for layer in read(out).layers()] == ["blocks.0.attn.qkv", "head"]
    np.testing.assert_array_equal(read(out).weight("head"), model.weight("head"))


def test_replaced_weights_are_what_is_written(tmp_path):
    model = read(fixture("vit"))
    changed = model.with_weights({layer.name: 2 * model.weight(layer.name) for layer in model.layers()[-2:]})
    plan = plan_for(changed, lambda _: 8)
    out = tmp_path / "q.tflite"
    changed.write(without(plan, {"head"}), out)
    batch = inputs_for(model, 3)
    assert relative(np.asarray(read(out).run(batch)), np.asarray(changed.run(batch))) < 0.02


@pytest.mark.parametrize("name", ["vit", "vit_float16", "two_signatures"])
def test_everything_else_in_the_file_stays(name, tmp_path):
    out = tmp_path / "q.tflite"
    model = read(fixture(name))
    model.write(plan_for(model, narrowest(model, 4)), out)
    before, after = (
        schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(p.read_bytes(), 0))
        for p in (fixture(name), out)
    )
    assert [s.signatureKey for s in before.signatureDefs] == [s.signatureKey for s in after.signatureDefs]
    for old, new in zip(before.metadata, after.metadata, strict=True):
        assert old.name == new.name
        assert bytes(before.buffers[old.buffer].data) == bytes(after.buffers[new.buffer].data)
    for old, new in zip(before.subgraphs, after.subgraphs, strict=True):
        removed = {"vit_float16": 10}.get(name, 0)
        assert len(new.tensors) == len(old.tensors) - removed
        for place in ("inputs", "outputs"):
            names = [[g.tensors[i].name for i in getattr(g, place)] for g in (old, new)]
            assert names[0] == names[1]
    biases = [t for t in after.subgraphs[0].tensors if len(t.shape) == 1 and t.type == 0 and t.buffer]
    assert biases


def test_both_signatures_run_after_writing(tmp_path):
    out = tmp_path / "q.tflite"
    model = read(fixture("two_signatures"))
    model.write(plan_for(model, narrowest(model, 4)), out)
    for signature in ("whole", "tail"):
        before, after = (read(p, signature=signature) for p in (fixture("two_signatures"), out))
        batch = inputs_for(before, 4)
        values = dequantized(before, narrowest(before, 4))
        assert (
            relative(np.asarray(after.run(batch)), np.asarray(before.with_weights(values).run(batch))) < 0.02
        )


def coded_layer(model, name, bits):
    weight = model.variant.opened.weights[name]
    rows = as_rows(model.weight(name), weight.channel_axis)
    return quantize.code(weight, quantize_rows(rows, bits, grid="narrow"), bits)


def test_a_layer_that_computes_something_else_is_found_and_named(tmp_path):
    """Verification is only worth something if it fails: the file holds other scales than it is checked
    against."""
    model = read(fixture("vit"))
    for factor, passes in ((1.0, True), (1.02, True), (1.3, False)):
        item = coded_layer(model, "blocks.1.mlp.fc1", 4)
        draft = Draft(model.variant.opened.graph)
        quantize.Rewriter(draft).apply(dataclasses.replace(item, scale=item.scale * np.float32(factor)))
        path = tmp_path / "spoiled.tflite"
        path.write_bytes(draft.content())
        if passes:
            verify.verify(model.variant, path, draft, [item], None)
        else:
            with pytest.raises(AdapterError, match=r"layer blocks\.1\.mlp\.fc1: the runtime computes"):
                verify.verify(model.variant, path, draft, [item], None)


def test_a_convolution_in_two_bits_is_caught_before_it_is_kept(tmp_path, monkeypatch):
    """The runtime gives garbage for it, NaN more often than not, and says nothing."""
    rng = np.random.default_rng(7)
    monkeypatch.setitem(containers._HYBRID_VERSIONS, (operands.CONV, 2), 8)
    path = convolution(
        tmp_path / "m.tflite", rng.normal(size=(8, 3, 3, 16)).astype(np.float32), np.zeros(8, np.float32)
    )
    model = read(path)
    out = tmp_path / "q.tflite"
    with pytest.raises(AdapterError, match=r"NaN|computes something else"):
        model.write(plan_for(model, lambda _: 2), out)
    assert not out.exists()
    assert {p.name for p in tmp_path.iterdir()} == {"m.tflite"}


def test_plans_that_cannot_be_written_are_refused(tmp_path):
    model = read(fixture("vit"))
    plan = plan_for(model, lambda _: 4)
    out = tmp_path / "q.tflite"
    other = dataclasses.replace(plan, layers=(dataclasses.replace(plan.layers[0], name="other"),))
    with pytest.raises(PlanError, match="no layer other"):
        model.write(other, out)
    layer = plan.layers[-1]
    smaller = dataclasses.replace(
        layer, shape=(2, 2), size=4, fingerprint=Fingerprint.from_array(np.ones(4, np.float32))
    )
    with pytest.raises(PlanError, match="4 weights in the plan"):
        model.write(dataclasses.replace(plan, layers=(smaller,)), out)
    batch = inputs_for(model, 2)
    ranged = plan_for(model, lambda _: 4, ranges=ranges_of(model, batch))
    with pytest.raises(AdapterError, match="need calibration data"):
        model.write(ranged, out)
    narrow = dataclasses.replace(
        ranged, layers=tuple(dataclasses.replace(x, activation_bits=4) for x in ranged.layers)
    )
    with pytest.raises(AdapterError, match="activations of 8 or 16 bits"):
        model.write(narrow, out, calibration=batch)
    assert not list(tmp_path.iterdir())


def test_profiles_use_the_grid_that_is_written():
    model = read(fixture("vit"))
    layers = model.layers()
    error = measure_weight_error(model, layers, all_options((2, 4, 8))).weight_error
    for index, layer in enumerate(layers):
        for column, bits in enumerate((2, 4, 8)):
            values = coded_layer(model, layer.name, bits).values()
            exact = float(np.square(values.astype(np.float64) - model.weight(layer.name)).sum())
            assert error[index, column] == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 64, 1001])
def test_packing_is_that_of_the_format(width, count):
    """The first code of a byte lies in its lowest bits, in two's complement."""
    rng = np.random.default_rng(7)
    half = 1 << (width - 1)
    codes = rng.integers(-half, half, size=count).astype(np.int8)
    packed = bitpacking.pack(codes, width)
    assert packed.size == -(-count * width // 8)
    number = int.from_bytes(packed.tobytes(), "little")
    read_back = [(number >> (width * i)) & ((1 << width) - 1) for i in range(count)]
    assert [v - 2 * half if v >= half else v for v in read_back] == codes.tolist()
    np.testing.assert_array_equal(bitpacking.unpack(packed, width, count), codes)


def test_a_written_file_keeps_its_size_when_it_is_written_again(tmp_path):
    model = read(fixture("vit"))
    plan = plan_for(model, lambda _: 4)
    out = tmp_path / "q.tflite"
    model.write(plan, out)
    data = b"".join(encode(read(out).variant.opened.graph.record))
    assert len(data) <= out.stat().st_size
    assert read(out).rest_bytes() <= out.stat().st_size


def test_activations_that_cannot_bear_rounding_are_left_as_they_are(tmp_path):
    """A large constant level and a small signal on it: 8 bits for the sum leave nothing of what the layer looks for."""
    rng = np.random.default_rng(7)
    signs = np.repeat(np.float32([-1, 1]), 18)
    weight = np.stack([rng.permutation(signs) for _ in range(6)]).reshape(6, 3, 3, 4)
    model = read(convolution(tmp_path / "m.tflite", weight, np.zeros(6, np.float32)))
    batch = (1000 + 0.1 * rng.normal(size=(4, 8, 8, 4))).astype(np.float32)
    out, plan = tmp_path / "q.tflite", plan_for(model, lambda _: 8)
    reference = np.asarray(model.with_weights(dequantized(model, lambda _: 8)).run(batch))
    model.write(plan, out, calibration=batch)
    assert out.stat().st_size == plan.total_bytes
    assert relative(run_directly(out, batch), reference) < 0.01
    assert ("DEQUANTIZE", 5) in opcodes(out)
