"""What `apply` did: the plan as it fits the model, the file, its bytes, and how exact it is."""

import json
import os

import pytest

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
