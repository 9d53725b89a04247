"""What `apply` did: the plan as it fits the model, the file, its bytes, and how exact it is."""

import json
import os

import numpy as np
import pytest
from onnx_graphs import Graph, make_plan

import lampq
from lampq.cli import main
from lampq.demo_data import MODEL_PATH
from lampq.verbs import apply as verb


@pytest.fixture(scope="module")
def plan():
    return lampq.plan(lampq.profile(lampq.read(MODEL_PATH), bits=(3, 4)), average_bits=3.5)


def test_apply_tells_what_it_wrote(plan, tmp_path):
    applied = lampq.apply(lampq.read(MODEL_PATH), plan, tmp_path / "q.onnx")
    assert applied.path == tmp_path / "q.onnx"
    assert applied.size_bytes == applied.path.stat().st_size <= plan.total_bytes
    assert applied.plan.widths == plan.widths
    assert 0 <= applied.error < 1e-3
    assert applied.notes == ()


def test_what_was_applied_stands_for_its_path(plan, tmp_path):
    applied = lampq.apply(lampq.read(MODEL_PATH), plan, tmp_path / "q.onnx")
    assert os.fspath(applied) == str(applied) == str(tmp_path / "q.onnx")
    assert lampq.read(applied).stored_bits()


def test_the_command_matches_once(plan, tmp_path, capfd, monkeypatch):
    plan.write(tmp_path / "plan.json")
    matched = []

    def fit_to(*args, fit=verb.fit_to, **options):
        matched.append(options)
        return fit(*args, **options)

    monkeypatch.setattr(verb, "fit_to", fit_to)
    words = ["apply", MODEL_PATH, tmp_path / "plan.json", "-o", tmp_path / "q.onnx", "--json", "--quiet"]
    assert main([str(word) for word in words]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["bytes"] == (tmp_path / "q.onnx").stat().st_size
    assert said["average_bits"] == pytest.approx(plan.average_bits)
    assert len(matched) == 1


def _with_a_table(path):
    g = Graph()
    added = g.node("Add", ["x", g.weight("table", 64, 64)])
    product = g.node("MatMul", [added, g.weight("fc.weight", 64, 4)])
    g.node("Reshape", [product, g.tensor("flat", (0, -1), np.int64)])
    return lampq.read(g.save(path, ["n", 64, 64]))


def test_a_table_that_the_plan_does_not_count_stays_float_and_is_named(tmp_path):
    model = _with_a_table(tmp_path / "float.onnx")
    table, fc = (layer.name for layer in model.layers())
    applied = lampq.apply(model, make_plan(model, {fc: 4}), tmp_path / "q.onnx")
    assert [layer.name for layer in applied.plan.layers] == [fc]
    assert any("stay as they are" in note and table in note for note in applied.notes)
    with pytest.raises(lampq.PlanError, match=f"1 layers of the model have no match .{fc}"):
        lampq.apply(model, make_plan(model, {table: 4}), tmp_path / "none.onnx")
