"""The same model as a module and as its ONNX export: the same layers, scores and plans."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch_models import read_named

from lampq import adapters
from lampq.adapters.torch.onnx_export import export_onnx
from lampq.core.errors import AdapterError
from lampq.core.match import match
from lampq.core.measure import measure_damage, quantized_weights
from lampq.verbs.apply import apply, fit_to
from lampq.verbs.plan import plan
from lampq.verbs.profile import profile


@pytest.fixture(scope="module", params=["packed", "windows", "convolutions"])
def pair(request, tmp_path_factory):
    model, batch = read_named(request.param)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(model, path)
    return model, adapters.read(path), batch


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
    mine, theirs = (measure_damage(m, m.layers(), (2, 4), batch).kl for m in (model, export))
    mine, theirs = mine[[i for i, _ in pairs]], theirs[[j for _, j in pairs]]
    np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=1e-6)
    assert spearmanr(mine.ravel(), theirs.ravel()).statistic > 0.99


def test_a_plan_made_on_one_applies_to_the_other(pair, tmp_path):
    model, export, batch = pair
    chosen = plan(profile(model, batch, bits=(2, 4, 8)), average_bits=4)
    written = adapters.read(apply(export, chosen, tmp_path / "q.onnx"))
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
