"""What widths are really in a quantized file, whoever wrote it."""

import json

import numpy as np
import onnx
import pytest
import torchvision_ops  # noqa: F401
import transformers
from onnx_graphs import make_plan
from onnx_models import mlp, normal, saved
from tflite_models import fixture
from tflite_models import plan_for as tflite_plan
from torch_models import read_named

import lampq
from lampq import adapters
from lampq.cli import main
from lampq.core.values.errors import AdapterError, PlanError
from lampq.verbs.compare import compare
from lampq.verbs.convert import convert, read_quantized

WIDTHS = (4, 8, 3, 5, 2)
WIDTHS_OF_BLOCKS = (2, 4, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return adapters.read(saved(mlp(5, width=32), tmp_path_factory.mktemp("stored")))


def mixed(model, widths=WIDTHS, **options):
    names = [layer.name for layer in model.layers()]
    return make_plan(model, {name: widths[i % len(widths)] for i, name in enumerate(names)}, **options)


def same(plan, found):
    """Whether two plans agree in every layer and its widths."""
    return compare([plan, found]).same and len(plan.layers) == len(found.layers)


@pytest.mark.parametrize("container", ["bitplane", "int8"])
@pytest.mark.parametrize("activations", [None, 8])
def test_files_of_lampq(container, activations, model, tmp_path):
    plan = mixed(model, container=container, activations=activations)
    lampq.apply(model, plan, tmp_path / "q.onnx")
    assert same(plan, read_quantized(tmp_path / "q.onnx", model))
    alone = read_quantized(tmp_path / "q.onnx")
    assert alone.widths == plan.widths
    assert alone.total_bytes == (tmp_path / "q.onnx").stat().st_size
    assert [layer.activation_bits for layer in alone.layers] == [activations] * 5


@pytest.mark.parametrize("block", [None, 8])
def test_scales_of_blocks_are_counted(block, model, tmp_path):
    profile = lampq.profile(model, bits=WIDTHS_OF_BLOCKS, block=block, rounding="nearest")
    plan = lampq.plan(profile, average_bits=4)
    lampq.apply(model, plan, tmp_path / "q.onnx")
    stored = adapters.stored(tmp_path / "q.onnx")
    assert {w.layer.name: w.payload_bytes for w in stored} == {p.name: p.payload_bytes for p in plan.layers}


def test_the_values_are_those_that_the_file_computes_with(model, tmp_path):
    plan = mixed(model)
    lampq.apply(model, plan, tmp_path / "q.onnx")
    arrays = {w.layer.name: w.layer for w in adapters.stored(tmp_path / "q.onnx")}
    from onnx_graphs import rounded

    for name, bits in plan.widths.items():
        expected = rounded(model, bits)[name]
        assert arrays[name].fingerprint.count == expected.size
        np.testing.assert_allclose(arrays[name].fingerprint.square, (expected**2).sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("old", "new"), [(b"bits\x18\x04\xa0\x01\x02", b"bits\x18\x04\xa0\x01\x00"), (b"matmul1", b"\xffatmul1")]
)
def test_attributes_and_names_that_make_no_sense(old, new, model, tmp_path):
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(model.path), block_size=32, is_symmetric=True)
    quantizer.process()
    data = quantizer.model.model.SerializeToString()
    assert old in data
    (tmp_path / "damaged.onnx").write_bytes(data.replace(old, new))
    with pytest.raises(AdapterError, match="cannot be understood"):
        adapters.stored(tmp_path / "damaged.onnx")


def test_nothing_reaches_standard_output_where_onnx_runtime_stumbles(model, tmp_path, capfd):
    """Its own second attempt, with other providers, would be announced there."""
    lampq.apply(model, mixed(model), tmp_path / "q.onnx")
    data = (tmp_path / "q.onnx").read_bytes()
    (tmp_path / "damaged.onnx").write_bytes(data.replace(b"RIGHT", b"\xffIGHT"))
    with pytest.raises(AdapterError, match="cannot be unpacked"):
        adapters.stored(tmp_path / "damaged.onnx")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("excluded", [(), ("matmul1",), ("matmul0", "matmul3")])
def test_matmul_nbits_of_onnx_runtime(excluded, model, tmp_path):
    """The tool gives the weights names of its own, and leaves some layers float."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer, RTNWeightOnlyQuantConfig

    plan = mixed(model, (4, 8, 8))
    config = json.loads(convert(plan, "ort-nbits", model=model)[0])
    quantizer = MatMulNBitsQuantizer(
        onnx.load(model.path),
        block_size=32,
        is_symmetric=True,
        nodes_to_exclude=list(excluded),
        algo_config=RTNWeightOnlyQuantConfig(customized_weight_config=config),
    )
    quantizer.process()
    onnx.save(quantizer.model.model, tmp_path / "q.onnx")
    floats = {name.replace("matmul", "fc") for name in excluded}
    expected = {name: bits for name, bits in plan.widths.items() if name not in floats}
    assert read_quantized(tmp_path / "q.onnx", model).widths == expected


def test_dequantize_linear_of_onnx_runtime(model, tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"x": normal(4, 32)}])

        def get_next(self):
            return next(self.batches, None)

    plan = mixed(model, (4, 8, 8))
    overrides = json.loads(convert(plan, "ort-qdq", model=model)[0])
    for parts in overrides["TensorQuantOverrides"].values():
        for part in parts:
            part["quant_type"] = QuantType[part["quant_type"]]
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(
        model.path,
        tmp_path / "q.onnx",
        Reader(),
        extra_options={**overrides, "UseQDQContribOps": True},
        **options,
    )
    found = read_quantized(tmp_path / "q.onnx", model)
    assert found.widths == plan.widths
    assert {layer.activation_bits for layer in found.layers} == {8}


@pytest.mark.parametrize("width", [2, 4, 8])
def test_tflite_files(width, tmp_path):
    model = adapters.read(fixture("vit"))
    plan = tflite_plan(model, lambda layer: width if layer.kind != "patch_embed" else 8)
    lampq.apply(model, plan, tmp_path / "q.tflite")
    assert read_quantized(tmp_path / "q.tflite", model).widths == plan.widths
    assert read_quantized(tmp_path / "q.tflite").widths == plan.widths


def test_hugging_face_folders(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=8,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    model = adapters.read(tmp_path / "vit")
    plan = mixed(model)
    lampq.apply(model, plan, tmp_path / "q")
    found = read_quantized(tmp_path / "q", model)
    assert found.widths == {n: b for n, b in plan.widths.items() if n in found.widths}
    linear = [layer for layer in model.layers() if len(layer.shape) == 2]
    assert set(found.widths) == {layer.name for layer in linear}


def test_packed_files_of_lampq(tmp_path):
    model, _ = read_named("packed")
    plan = mixed(model)
    lampq.apply(model, plan, tmp_path / "q.safetensors")
    assert read_quantized(tmp_path / "q.safetensors", model).widths == plan.widths


def test_another_model_is_told(model, tmp_path):
    lampq.apply(model, mixed(model), tmp_path / "q.onnx")
    other = adapters.read(saved(mlp(3, width=16), tmp_path, "other.onnx"))
    with pytest.raises(PlanError, match=r"q\.onnx was not made from other\.onnx"):
        read_quantized(tmp_path / "q.onnx", other)
    built = onnx.load(model.path)
    for initializer in built.graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        initializer.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(3), initializer.name))
    tripled = adapters.read(saved(built, tmp_path, "tripled.onnx"))
    with pytest.raises(PlanError, match="rounded"):
        read_quantized(tmp_path / "q.onnx", tripled)


def test_float_files_and_damaged_ones_are_refused(model, tmp_path):
    with pytest.raises(PlanError, match="no quantized weights"):
        read_quantized(model.path)
    (tmp_path / "bad.onnx").write_bytes(b"\x08" * 100)
    with pytest.raises(AdapterError):
        read_quantized(tmp_path / "bad.onnx")


def test_the_command_answers_whether_a_plan_is_in_a_file(model, tmp_path, capfd):
    plan = mixed(model)
    plan.write(tmp_path / "plan.json")
    lampq.apply(model, plan, tmp_path / "q.onnx")
    for more in (["--plan", tmp_path / "plan.json"], ["--model", model.path], []):
        words = ["convert", tmp_path / "q.onnx", *more, "-o", tmp_path / "found.json", "--force", "--quiet"]
        assert main([str(word) for word in words]) == 0
        words = ["compare", "--check", "--quiet", tmp_path / "plan.json", tmp_path / "found.json"]
        assert main([*(str(word) for word in words), *([] if more else ["--by-name"])]) == 0
    mixed(model, (4, 8)).write(tmp_path / "other.json")
    assert (
        main(
            [
                "compare",
                "--check",
                "--quiet",
                str(tmp_path / "other.json"),
                str(tmp_path / "found.json"),
                "--by-name",
            ]
        )
        == 2
    )
    assert "different widths" in capfd.readouterr().err
