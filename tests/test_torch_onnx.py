"""The same model as a module and as its ONNX export: the same layers, scores and plans."""

import sys

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tflite_models import FIXTURES
from torch_models import read_named

from lampq import adapters
from lampq.adapters.torch.onnx_export import export_onnx
from lampq.cli import main
from lampq.core.measuring.measure import measure_damage, quantized_weights
from lampq.core.values.errors import AdapterError
from lampq.core.values.match import match
from lampq.core.values.option import all_options
from lampq.core.values.plan import Plan
from lampq.demo_data import MODEL_PATH
from lampq.verbs.apply import apply, fit_to
from lampq.verbs.formats import converted
from lampq.verbs.plan import plan
from lampq.verbs.profile import profile


@pytest.fixture(scope="module", params=["packed", "windows", "convolutions"])
def pair(request, tmp_path_factory):
    model, batch = read_named(request.param)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(model, path)
    return model, adapters.read(path), batch


def test_an_export_without_onnxscript_says_what_to_install(tmp_path, monkeypatch):
    """No extra of lampq brings it: the message must not send people to one."""
    model, _ = read_named("packed")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(AdapterError, match=r"run: pip install onnxscript$"):
        export_onnx(model, tmp_path / "model.onnx")


def test_the_export_runs_any_number_of_samples(pair):
    model, export, batch = pair
    assert export.input_spec.batch is None
    np.testing.assert_allclose(export.run(batch), model.run(batch), rtol=1e-4, atol=1e-4)


def test_every_layer_has_its_counterpart(pair):
    model, export, _ = pair
    found = match(model.layers(), export.layers())
    assert found.complete
    assert found.renamed == 0


def test_both_measure_the_same_damage(pair):
    model, export, batch = pair
    pairs = match(model.layers(), export.layers()).pairs
    mine, theirs = (measure_damage(m, m.layers(), all_options((2, 4)), batch).kl for m in (model, export))
    mine, theirs = mine[[i for i, _ in pairs]], theirs[[j for _, j in pairs]]
    np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=1e-6)
    assert spearmanr(mine.ravel(), theirs.ravel()).statistic > 0.99


def test_a_plan_made_on_one_applies_to_the_other(pair, tmp_path):
    model, export, batch = pair
    chosen = plan(profile(model, batch, bits=(2, 4, 8)), average_bits=4)
    written = adapters.read(apply(export, chosen, tmp_path / "q.onnx").path)
    fitted = fit_to(model, chosen)
    expected = model.with_weights(quantized_weights(model, fitted.widths)).run(batch)
    np.testing.assert_allclose(written.run(batch), expected, rtol=1e-3, atol=1e-3)


def test_replaced_weights_are_exported(tmp_path):
    model, batch = read_named("windows")
    values = {"qkv": np.zeros((24, 8), np.float32)}
    export_onnx(model.with_weights(values), tmp_path / "model.onnx")
    found = adapters.read(tmp_path / "model.onnx").run(batch)
    np.testing.assert_allclose(found, model.with_weights(values).run(batch), rtol=1e-4, atol=1e-5)
    # The module itself keeps its weights.
    assert model.module.qkv.weight.abs().sum() > 0


def test_what_cannot_be_exported_leaves_nothing_behind(tmp_path):
    class Outside(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(8, 16)

        def forward(self, x):
            return self.a(x) + float(x.detach().numpy().max())

    model = adapters.torch.read(Outside().eval(), input_shape=(8,))
    with pytest.raises(AdapterError, match="cannot be exported"):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


FACTORY = """
import torch
from torch import nn

def build():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4))
"""


def test_commands_write_the_export_with_the_plan_of_the_module(tmp_path, capfd):
    (tmp_path / "net.py").write_text(FACTORY)
    source, data, out = f"{tmp_path / 'net.py'}:build", tmp_path / "data.npz", tmp_path / "q.onnx"
    x = np.random.default_rng(0).normal(size=(32, 12)).astype(np.float32)
    np.savez(data, x=x)
    given, profile_path, plan_path = ["--data", data, "--quiet"], tmp_path / "p.json", tmp_path / "plan.json"
    for words in (
        ["profile", source, *given, "--bits", "2,4,8", "-o", profile_path],
        ["plan", profile_path, "--avg-bits", "4", "--quiet", "-o", plan_path],
        ["apply", source, plan_path, "--to", "onnx", "--quiet", "-o", out],
    ):
        assert main([str(word) for word in words]) == 0
    widths = {layer.name: layer.weight_bits for layer in Plan.read(plan_path).layers}
    assert {name: bits for name, (bits, _) in adapters.read(out).stored_bits().items()} == widths
    model = adapters.read(source, input_shape=(12,))
    expected = model.with_weights(quantized_weights(model, widths)).run(x)
    np.testing.assert_allclose(adapters.read(out).run(x), expected, rtol=1e-4, atol=1e-4)
    words = [
        "quantize",
        source,
        *given,
        "--avg-bits",
        "4",
        "--bits",
        "2,4,8",
        "--to",
        "onnx",
        "--force",
        "-o",
        out,
    ]
    assert main([str(word) for word in words]) == 0
    assert out.stat().st_size > 0
    packed = tmp_path / "q.safetensors"
    words = ["quantize", source, *given, "--avg-bits", "4", "--bits", "2,4,8", "-o", packed]
    assert main([str(word) for word in words]) == 0
    assert adapters.read(source, weights=packed, input_shape=(12,)).stored_bits().keys() == widths.keys()
    capfd.readouterr()
    assert (
        main(
            [
                "apply",
                str(MODEL_PATH),
                str(plan_path),
                "--to",
                "onnx",
                "--quiet",
                "-o",
                str(tmp_path / "z.onnx"),
            ]
        )
        == 2
    )
    assert "made for another model" in capfd.readouterr().err


def test_only_modules_are_exported(tmp_path):
    with (
        pytest.raises(AdapterError, match="tflite models cannot be converted to onnx"),
        converted(adapters.read(FIXTURES / "vit.tflite"), "onnx"),
    ):
        pass
