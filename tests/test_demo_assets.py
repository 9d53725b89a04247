import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
import torch
from divergence import kl_divergence

from lampq.core.quantizing.quantizer import as_rows, from_rows, quantize
from lampq.demo_data import (
    CALIBRATION_PATH,
    FLOAT_TOP1,
    MODEL_PATH,
    PREPROCESS,
    VALIDATION_PATH,
    calibration,
    validation,
)

ROOT = Path(__file__).parent.parent
ASSETS = (MODEL_PATH, CALIBRATION_PATH, VALIDATION_PATH)


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def proto():
    return onnx.load(MODEL_PATH)


@pytest.fixture(scope="module")
def example():
    """The training script as a module; what it sets in torch is undone."""
    path = ROOT / "examples" / "train_digits_vit.py"
    spec = importlib.util.spec_from_file_location("train_digits_vit", path)
    module = importlib.util.module_from_spec(spec)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    spec.loader.exec_module(module)
    yield module
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in ASSETS) < 1_000_000


def test_the_model_reaches_its_recorded_accuracy():
    inputs, labels = validation()
    logits = session(str(MODEL_PATH)).run(None, {"x": inputs})[0]
    assert len(labels) == 1000
    assert (logits.argmax(axis=1) == labels).mean() == pytest.approx(FLOAT_TOP1, abs=0.0021)
    assert FLOAT_TOP1 >= 0.95


def test_a_second_runtime_agrees(proto):
    inputs = calibration()[:8]
    expected = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": inputs})[0]
    np.testing.assert_allclose(session(str(MODEL_PATH)).run(None, {"x": inputs})[0], expected, atol=1e-4)


def test_any_number_of_samples_gives_the_same_logits():
    inputs = calibration()[:5]
    model = session(str(MODEL_PATH))
    whole = model.run(None, {"x": inputs})[0]
    single = np.concatenate([model.run(None, {"x": inputs[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_allclose(whole, single, atol=1e-5)


def test_the_file_names_its_layers_and_nothing_else(proto):
    assert not proto.metadata_props
    assert not proto.graph.metadata_props
    assert {entry.key for node in proto.graph.node for entry in node.metadata_props} == {
        "pkg.torch.onnx.name_scopes"
    }
    assert b"/" not in b"".join(e.value.encode() for n in proto.graph.node for e in n.metadata_props)
    layers = [node for node in proto.graph.node if node.op_type in ("MatMul", "Conv", "Gemm")]
    scopes = {entry.value for node in layers for entry in node.metadata_props}
    for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        assert sum(layer in scope for scope in scopes) == 6
    assert any("patch_embed.proj" in scope for scope in scopes)
    assert any("'head'" in scope for scope in scopes)
    # The exporter adds a few scalars of its own.
    floats = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(t.dims)) for t in floats) == pytest.approx(171_322, abs=8)


def test_allocation_matters(proto):
    """At 2 bits everywhere the model loses points, and layers differ widely in what they contribute."""
    inputs, labels = validation()
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    weights = {}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        name = node.input[1] if node.op_type in ("MatMul", "Conv", "Gemm") else ""
        if name in tensors:
            weights[name] = onnx.numpy_helper.to_array(tensors[name])
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, list(weights[name].shape)))
    assert len(weights) == 26
    transposed = {n.input[1] for n in model.graph.node if n.op_type in ("Conv", "Gemm")}
    rough = {}
    for name, weight in weights.items():
        axis = 0 if name in transposed else 1
        codes = quantize(as_rows(weight, axis), 2, grid="mid_rise", threads=1)
        rough[name] = from_rows(codes.dequantized(), weight.shape, axis)
    runner = session(model.SerializeToString())
    reference = runner.run(None, {"x": inputs})[0]
    uniform = runner.run(None, {"x": inputs, **rough})[0]
    assert (uniform.argmax(axis=1) == labels).mean() < FLOAT_TOP1 - 0.04
    damage = [
        kl_divergence(reference[:200], runner.run(None, {"x": inputs[:200], name: value})[0]).mean()
        for name, value in rough.items()
    ]
    assert max(damage) > 100 * min(damage)


def test_splits_are_those_of_the_script_and_do_not_overlap(example):
    parts = example.split_digits()
    for name, path in (("calibration", CALIBRATION_PATH), ("validation", VALIDATION_PATH)):
        with np.load(path, allow_pickle=False) as shipped:
            np.testing.assert_array_equal(shipped["x"], parts[name][0])
            np.testing.assert_array_equal(shipped["y"], parts[name][1])
            assert shipped["classes"].tolist() == list("0123456789")
    images = np.concatenate([part[0] for part in parts.values()])
    assert len(images) == 1797
    # No image occurs twice, so none is in two splits.
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797
    assert np.bincount(parts["calibration"][1]).min() >= 10


def test_preprocessing_is_that_of_the_training(example):
    parts = example.split_digits()
    np.testing.assert_allclose(example.normalize(parts["validation"][0]).numpy(), validation()[0], atol=1e-6)
    pixels = np.concatenate([part[0] for part in parts.values()]) / 255
    assert PREPROCESS.mean == pytest.approx((pixels.mean(),), abs=1e-3)
    assert PREPROCESS.std == pytest.approx((pixels.std(),), abs=1e-3)


def test_the_script_trains_and_exports(example, tmp_path):
    images, labels = (array[:100] for array in example.split_digits()["train"])
    first, second = (example.train(images, labels, epochs=1) for _ in range(2))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert sum(parameter.numel() for parameter in first.parameters()) == 171_322
    example.export(first, tmp_path / "model.onnx")
    x = example.normalize(images[:7])
    with torch.no_grad():
        expected = first(x).numpy()
    exported = session(str(tmp_path / "model.onnx"))
    np.testing.assert_allclose(exported.run(None, {"x": x.numpy()})[0], expected, atol=1e-5)
    written, shipped = onnx.load(tmp_path / "model.onnx"), onnx.load(MODEL_PATH)
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in shipped.graph.node]
