"""Damaged plans, profiles and ONNX files, some hundred of each; benchmarks/fuzz.py runs thousands."""

from pathlib import Path

import pytest
from fuzzing import judge
from records import make_profile

import lampq
from lampq.core.errors import RecordError
from lampq.core.profile import Profile

DEMO = Path(lampq.__file__).parent / "demo" / "digits_vit.onnx"


def sources(folder):
    profile = make_profile()
    profile.write(folder / "profile.json")
    lampq.plan(profile, average_bits=4).write(folder / "plan.json")
    return {"profile": folder / "profile.json", "plan": folder / "plan.json", "onnx": DEMO}


@pytest.mark.parametrize(("kind", "count"), [("profile", 400), ("plan", 400), ("onnx", 60)])
def test_damaged_files_are_refused_or_read(kind, count, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    counts, failures, _, peak = judge(kind, sources(tmp_path)[kind], folder, count)
    assert failures == []
    assert counts["read"] > 0
    assert counts["refused"] > count / 2
    assert peak < 10**9


def test_a_number_beyond_all_floats_is_a_malformed_profile(tmp_path):
    path = sources(tmp_path)["profile"]
    text = path.read_text()
    path.write_text(text.replace('"samples": 6', '"samples": 1e999'))
    with pytest.raises(RecordError, match="malformed"):
        Profile.read(path)
