"""Scales per block of a row: in the core, and in the files of every format."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torchvision_ops  # noqa: F401
import transformers
from onnx_graphs import batch_for, run, transformer
from tflite_models import linear
from torch_models import make_batch, read_named

from lampq import adapters
from lampq.adapters.onnx.reader import read as read_onnx
from lampq.adapters.tflite import read as read_tflite
from lampq.adapters.torch import hugging_face, load_quantized
from lampq.cli import main
from lampq.core.allocating.allocation import build_plan
from lampq.core.measuring.measure import quantized_weights
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.quantizer import as_rows, from_rows, quantize
from lampq.core.values.blocks import row_block, scale_count
from lampq.core.values.errors import AdapterError, PlanError, RecordError
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.verbs.apply import apply
from lampq.verbs.plan import plan as make_plan
from lampq.verbs.profile import profile

BLOCK = 8
WIDTHS = (2, 3, 4, 8)


def mixed(measured):
    """Widths in turn."""
    choice = np.arange(len(measured.layers)) % len(WIDTHS)
    return build_plan(measured, choice, mode="uniform", budget={"average_bits": 5})


@pytest.mark.parametrize("axis", [0, 1])
def test_each_block_is_quantized_as_if_alone(axis):
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(24, 64)) * np.exp(rng.normal(size=(24, 64)))).astype(np.float32)
    weight = weight if axis == 0 else np.ascontiguousarray(weight.T)
    rows = as_rows(weight, axis, 32)
    assert rows.shape == (48, 32)
    values = from_rows(quantize(rows, 3, grid="mid_tread").dequantized(), weight.shape, axis)
    matrix = weight if axis == 0 else weight.T
    alone = np.empty_like(matrix)
    for start in range(0, 64, 32):
        part = np.ascontiguousarray(matrix[:, start : start + 32])
        alone[:, start : start + 32] = quantize(part, 3, grid="mid_tread").dequantized()
    np.testing.assert_array_equal(values, alone if axis == 0 else alone.T)


def test_smaller_blocks_never_err_more_on_average():
    rng = np.random.default_rng(1)
    weight = (rng.normal(size=(32, 256)) * np.exp(0.5 * rng.normal(size=(32, 256)))).astype(np.float32)
    errors = [quantize(as_rows(weight, 0, b), 3).squared_error.sum() for b in (None, 128, 64, 32)]
    assert errors == sorted(errors, reverse=True)


def test_only_matrices_that_divide_are_cut():
    assert row_block((8, 96), 0, 32) == 32
    assert row_block((96, 8), 1, 32) == 32
    assert row_block((8, 32), 0, 32) is None
    assert row_block((8, 100), 0, 32) is None
    assert row_block((8, 4, 4, 4), 0, 32) is None
    assert scale_count((8, 4, 4, 4), 0, 32) == 8
    assert scale_count((96, 8), 1, 32) == 24


@pytest.mark.parametrize("opset", [13, 17])
def test_onnx_files_compute_and_weigh_what_the_plan_says(tmp_path, opset):
    path = transformer(tmp_path / "m.onnx", opset=opset)
    model = read_onnx(path)
    plan = mixed(profile(model, block=BLOCK, bits=WIDTHS))
    assert any(row_block(layer.shape, 0, BLOCK) for layer in plan.layers)
    out = apply(model, plan, tmp_path / "q.onnx").path
    batch = batch_for(3, 6, 16)
    expected = model.with_weights(quantized_weights(model.with_coding(Coding(block=BLOCK)), plan.widths)).run(
        batch
    )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: batch})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(out, batch), found, rtol=1e-4, atol=1e-5)
    tensors = {tensor.name: tensor for tensor in onnx.load(out).graph.initializer}
    for layer, record in zip(plan.layers, model.layers(), strict=True):
        scales = np.prod(tensors[f"{layer.name}.scale"].dims)
        assert scales == scale_count(layer.shape, record.channel_axis, BLOCK)
    assert out.stat().st_size <= plan.total_bytes
    assert adapters.read(out).stored_bits() == {
        n: (b, "int8" if b == 8 else "bitplane") for n, b in plan.widths.items()
    }


def test_size_budgets_hold_with_blocks(tmp_path):
    model = read_onnx(transformer(tmp_path / "m.onnx"))
    batch = batch_for(3, 6, 16)
    measured = profile(model, batch, block=BLOCK, fisher_draws=0)
    smallest = measured.total_bytes(measured.stored_bytes.argmin(axis=1))
    largest = measured.total_bytes(measured.stored_bytes.argmax(axis=1))
    budget = (smallest + largest) // 2
    chosen = make_plan(measured, size_bytes=budget)
    assert apply(model, chosen, tmp_path / "q.onnx").size_bytes <= chosen.total_bytes <= budget


def test_files_keep_the_block(tmp_path):
    model = read_onnx(transformer(tmp_path / "m.onnx"))
    measured = profile(model, block=BLOCK, bits=WIDTHS)
    measured.write(tmp_path / "p.json")
    mixed(Profile.read(tmp_path / "p.json")).write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json").block == BLOCK


def test_integer_products_and_blocks_exclude_each_other(tmp_path):
    model = read_onnx(transformer(tmp_path / "m.onnx"))
    plan = mixed(profile(model, batch_for(3, 6, 16), block=BLOCK, bits=WIDTHS, act_bits=8, fisher_draws=0))
    with pytest.raises(PlanError, match="float inputs"):
        apply(model, plan, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


def test_packed_files_of_torch(tmp_path):
    model, batch = read_named("packed")
    plan = mixed(profile(model, block=BLOCK, bits=WIDTHS))
    path = apply(model, plan, tmp_path / "q.safetensors").path
    expected = model.with_weights(quantized_weights(model.with_coding(Coding(block=BLOCK)), plan.widths)).run(
        batch
    )
    again = model.with_weights({})
    module = load_quantized(path, model.module)
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(batch)).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert path.stat().st_size <= plan.total_bytes
    assert again.coding.block is None


def test_hugging_face_directories(tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=5,
    )
    with hugging_face.quietly(transformers):
        transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "m")
    model = adapters.read(tmp_path / "m")
    plan = mixed(profile(model, block=BLOCK, bits=WIDTHS))
    applied = apply(model, plan, tmp_path / "q")
    out, batch = applied.path, make_batch((3, 32, 32))
    blocks, widths = model.with_coding(Coding(block=BLOCK)), applied.plan.widths
    # A folder packs matrices alone.
    assert plan.widths.keys() - widths.keys() == {"vit.embeddings.patch_embeddings.projection"}
    expected = model.with_weights(quantized_weights(blocks, widths)).run(batch)
    np.testing.assert_allclose(adapters.read(out).run(batch), expected, rtol=1e-4, atol=1e-5)
    assert sum(file.stat().st_size for file in out.glob("*.safetensors")) <= plan.total_bytes


def test_tflite_has_one_scale_per_channel(tmp_path):
    path = linear(tmp_path / "m.tflite", np.ones((4, 64), np.float32), np.zeros(4, np.float32))
    with pytest.raises(AdapterError, match="one scale per output channel"):
        profile(read_tflite(path), block=32)


@pytest.mark.parametrize("block", [0, 7, 5000, True])
def test_impossible_blocks_are_refused(tmp_path, block):
    model = read_onnx(transformer(tmp_path / "m.onnx"))
    with pytest.raises(RecordError, match="8 to 4096"):
        profile(model, block=block)


def test_on_the_command_line(tmp_path, capfd):
    path = transformer(tmp_path / "m.onnx")
    out = tmp_path / "p.json"
    assert main(["profile", str(path), "--no-data", "--block", str(BLOCK), "-o", str(out), "--quiet"]) == 0
    assert Profile.read(out).block == BLOCK
    assert main(["profile", str(path), "--no-data", "--block", "3", "-o", str(out), "--force"]) == 2
    assert "8 to 4096" in capfd.readouterr().err
