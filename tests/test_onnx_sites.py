"""Sites of ONNX files: found by the names of PyTorch models, planned without one, and written into the file."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_graphs import Graph
from onnx_models import exported
from onnx_runs import images, read

import lampq
from lampq.adapters.onnx.format import ONNX
from lampq.adapters.onnx.torch_module import as_torch
from lampq.cli import main
from lampq.core.values.errors import AdapterError

ALONE = {"fisher_draws": 0, "rounding": "nearest"}


@pytest.fixture(scope="module", params=["dynamo", "legacy"])
def model(request):
    return read(exported("vit", request.param))


@pytest.fixture(scope="module")
def batch():
    return images(6)


def run(path, batch):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": batch})[0]


def test_the_graph_in_pytorch_has_the_layers_and_products_of_the_file(model, batch):
    twin = as_torch(model, batch)
    np.testing.assert_allclose(twin.run(batch), model.run(batch), atol=1e-4)
    kinds = {layer.name: layer.kind for layer in model.layers()}
    assert {layer.name: layer.kind for layer in twin.layers()}.items() <= kinds.items()
    assert twin.products() == ONNX.products(model)
    assert [p.name.partition("@")[2] for p in twin.products()] == ["scores", "context"] * 2
    assert all(p.name.startswith(f"blocks.{i // 2}.attn@") for i, p in enumerate(twin.products()))


def test_sites_of_a_file_are_profiled_planned_and_simulated(model, batch, tmp_path):
    profile = lampq.profile(model, batch, bits=(4, 8), act_bits=(3, 8), sites="all", **ALONE)
    assert [p.name for p in profile.products] == [p.name for p in ONNX.products(model)]
    plan = lampq.plan(profile, average_bits=6, average_input_bits=5)
    assert any(layer.activation_bits == 3 for layer in plan.layers)
    lampq.simulate(model, plan, tmp_path / "s.onnx")
    expected = lampq.fake_quantize(as_torch(model, batch), plan).run(batch)
    np.testing.assert_allclose(run(tmp_path / "s.onnx", batch), expected, atol=1e-3)


def test_uniform_sites_are_quantized_in_one_go(model, batch, tmp_path):
    choices = {"bits": (4, 8), "act_bits": (4, 8), "sites": "all", "quantizers": ("uniform",), **ALONE}
    plan = lampq.quantize(
        model, batch, tmp_path / "q.onnx", average_bits=6, average_input_bits=6, rounds=0, **choices
    )
    widths = {layer.activation_bits for layer in plan.layers if layer.quantizer}
    assert widths == {4, 8} and plan.total_bytes == (tmp_path / "q.onnx").stat().st_size
    nodes = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert nodes.count("QuantizeLinear") >= 2 * len(plan.products)
    truth = lampq.evaluate(lampq.read(tmp_path / "q.onnx"), batch, reference=model).kl
    assert truth == pytest.approx(plan.measured_kl, rel=1e-4) and truth > 1e-6
    simulated = tmp_path / "s.onnx"
    lampq.simulate(model, plan, simulated)
    np.testing.assert_allclose(run(simulated, batch), run(tmp_path / "q.onnx", batch), atol=2e-2)


def test_what_a_file_would_not_hold_is_refused_before_any_work(model, batch, tmp_path):
    with pytest.raises(
        AdapterError, match=r"onnx files round sites on one range alone; pass --quantizers uniform"
    ):
        lampq.quantize(
            model, batch, tmp_path / "q.onnx", average_bits=4, act_bits=(4,), sites="all", bits=(4,), **ALONE
        )


def attention_over_any_length(path):
    graph = Graph()
    graph.tensor("parts", np.array([0, 0, 2, 4]), np.int64)
    q, k, v = (
        graph.node("Transpose", [graph.node("Reshape", [hidden, "parts"])], perm=[0, 2, 1, 3])
        for hidden in (graph.node("MatMul", ["x", graph.weight(f"{n}.weight", 8, 8)]) for n in "qkv")
    )
    scores = graph.node("MatMul", [q, graph.node("Transpose", [k], perm=[0, 1, 3, 2])])
    context = graph.node("MatMul", [graph.node("Softmax", [scores], axis=-1), v])
    graph.node("ReduceMean", [context, graph.tensor("axes", np.array([1, 2]), np.int64)], keepdims=0)
    return lampq.read(graph.save(path, ["n", "t", 8]))


def test_tokens_of_any_number_are_rounded_by_what_does_not_count_them(tmp_path):
    model = attention_over_any_length(tmp_path / "m.onnx")
    batch = np.random.default_rng(0).normal(size=(6, 5, 8)).astype(np.float32)
    sites = {"bits": (4,), "act_bits": (4,), "sites": "all", **ALONE}
    plan = lampq.plan(lampq.profile(model, batch, quantizers=("uniform", "token"), **sites), average_bits=4)
    assert [decision.product.left_values for decision in plan.products] == [5 * 8, 2 * 5 * 5]
    renamed = tuple(
        dataclasses.replace(decision, product=dataclasses.replace(decision.product, name=f"a{i}@product"))
        for i, decision in enumerate(plan.products)
    )
    lampq.simulate(model, dataclasses.replace(plan, products=renamed), tmp_path / "s.onnx")
    twin = as_torch(model, batch)
    for tokens in (5, 3):
        expected = lampq.fake_quantize(twin, plan).run(batch[:, :tokens])
        np.testing.assert_allclose(run(tmp_path / "s.onnx", batch[:, :tokens]), expected, atol=1e-4)
    plan = lampq.plan(lampq.profile(model, batch, quantizers=("noise", "dither"), **sites), average_bits=4)
    with pytest.raises(
        AdapterError, match=r"site q, quantizer noise: it goes by position, and samples .* any length"
    ):
        lampq.simulate(model, plan, tmp_path / "t.onnx")


def test_operators_without_a_form_in_pytorch_are_named(tmp_path):
    graph = Graph()
    hidden = graph.node("MatMul", ["x", graph.weight("fc.weight", 8, 8)])
    graph.node("QuickGelu", [hidden], domain="com.microsoft")
    model = lampq.read(graph.save(tmp_path / "m.onnx", ["n", 8]))
    batch = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    with pytest.raises(
        AdapterError, match=r"before there is a file: operator com.microsoft.QuickGelu has no .* --sites"
    ):
        lampq.profile(model, batch, bits=(4,), act_bits=(4,), sites="all", **ALONE)


def test_the_command_line_takes_sites_of_a_file(batch, tmp_path):
    np.savez(tmp_path / "calib.npz", x=batch)
    path, files = exported("vit", "dynamo"), [tmp_path / name for name in ("p.json", "plan.json", "s.onnx")]
    arguments = [
        "profile",
        path,
        "--data",
        tmp_path / "calib.npz",
        "--bits",
        4,
        "--act-bits",
        4,
        "--sites",
        "all",
    ]
    assert main([*map(str, arguments), "--fisher-draws", "0", "--quiet", "-o", str(files[0])]) == 0
    assert main(["plan", str(files[0]), "--avg-bits", "4", "--quiet", "-o", str(files[1])]) == 0
    assert main(["apply", str(path), str(files[1]), "--simulate", "--quiet", "-o", str(files[2])]) == 0
    assert np.isfinite(run(files[2], batch)).all()
