"""Runs killed before every sync, rename and removal: what was there, or what was to be, is there and whole."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx_graphs import batch_for, transformer

from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile

BATCH = batch_for(8, 6, 16)
# More than any command does; a run that goes on is a fault.
MOST = 400


class Runs:
    """Commands in children of one warm process."""

    def __init__(self):
        script = Path(__file__).with_name("killed_runs.py")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, words, at=0, **more):
        told = {"words": [str(word) for word in words], "at": at, **more}
        print(json.dumps(told), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def runs():
    runs = Runs()
    yield runs
    runs.process.communicate()


@pytest.fixture(scope="module")
def made(tmp_path_factory, runs):
    """A model, data, and two each of profiles, shards and plans."""
    folder = tmp_path_factory.mktemp("made")
    transformer(folder / "m.onnx")
    np.savez(folder / "x.npz", x=BATCH)
    measure = ["profile", folder / "m.onnx", "--data", folder / "x.npz", "--fisher-draws", "0", "--quiet"]
    for name, bits in (("a", "2,4"), ("b", "2,3")):
        assert runs([*measure, "--bits", bits, "-o", folder / f"{name}.json"]) == 0
        for part in "12":
            words = ["--shard", f"{part}/2", "-o", folder / f"{name}{part}.json"]
            assert runs([*measure, "--bits", bits, *words]) == 0
    for name, bits in (("plan-a", 3), ("plan-b", 2.2)):
        words = ["plan", folder / "a.json", "--avg-bits", bits, "--quiet", "-o", folder / f"{name}.json"]
        assert runs(words) == 0
    return folder


def commands(made, out):
    """Verb -> two commands that write different things to the same files."""
    data = ["--data", made / "x.npz", "--fisher-draws", "0"]
    quantize = ["quantize", made / "m.onnx", *data, "--rounds", "0", "--mode", "kl"]
    sides = ["--plan-out", out / "p.json", "--profile-out", out / "f.json", "-o", out / "q.onnx"]
    both = {
        "profile": lambda v: [
            "profile",
            made / "m.onnx",
            *data,
            "--bits",
            "24"[v] + ",8",
            "-o",
            out / "f.json",
        ],
        "plan": lambda v: ["plan", made / "a.json", "--avg-bits", (3, 2.2)[v], "-o", out / "p.json"],
        "apply": lambda v: ["apply", made / "m.onnx", made / f"plan-{'ab'[v]}.json", "-o", out / "q.onnx"],
        "quantize": lambda v: [*quantize, "--bits", ("2,4", "2,3")[v], "--avg-bits", (3, 2.2)[v], *sides],
        "sweep": lambda v: [
            "sweep",
            made / f"{'ab'[v]}.json",
            "--mode",
            "kl",
            "--plot",
            out / "s.png",
            "-o",
            out / "s.csv",
        ],
        "report": lambda v: ["report", made / f"plan-{'ab'[v]}.json", "-o", out / "r.html"],
        "convert": lambda v: ["convert", made / f"plan-{'ab'[v]}.json", "--to", "csv", "-o", out / "c.csv"],
        "merge": lambda v: ["merge", *(made / f"{'ab'[v]}{i}.json" for i in "12"), "-o", out / "f.json"],
    }
    found = {verb: [[*make(v), "--force", "--quiet"] for v in (0, 1)] for verb, make in both.items()}
    return found | {"folder": [["folder", out / "folder", text] for text in "ab"]}


def content(path):
    """What a reader finds in an output."""
    if path.is_dir():
        return tuple(sorted((file.name, file.read_text()) for file in path.iterdir()))
    if path.suffix == ".onnx":
        logits = onnxruntime.InferenceSession(path).run(None, {"x": BATCH})[0]
        assert np.isfinite(logits).all()
        return logits.tobytes()
    if path.suffix != ".json":
        return path.read_bytes()
    if json.loads(path.read_text())["schema"] == "lampq.plan/2":
        return Plan.read(path).widths
    profile = Profile.read(path)
    return (profile.options, profile.weight_error.tobytes())


def contents(folder):
    """Every output by name; none is what is hidden, what other files name, or the journal of a long run."""
    beside = (".npz", ".data", ".state")
    names = [p for p in folder.iterdir() if not p.name.startswith(".") and p.suffix not in beside]
    return {path.name: content(path) for path in names}


VERBS = ("profile", "plan", "apply", "quantize", "sweep", "report", "convert", "merge", "folder")


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_killed_anywhere_leaves_every_output_old_or_new_and_whole(verb, made, runs, tmp_path):
    pair = commands(made, tmp_path)[verb]
    versions = []
    for words in pair:
        assert runs(words) == 0
        versions.append(contents(tmp_path))
    files = len(list(tmp_path.iterdir()))
    assert all(versions[0][name] != versions[1][name] for name in versions[0])
    latest, status, at = 1, -9, 0
    while status == -9:
        at += 1
        assert at < MOST
        status = runs(pair[1 - latest], at)
        found = contents(tmp_path)
        assert set(found) == set(versions[0])
        for name, value in found.items():
            assert value in (versions[0][name], versions[1][name]), f"{name} after a kill before step {at}"
        latest = 1 - latest if found == versions[1 - latest] else latest
    assert status == 0
    assert at > 3
    # The run that was not killed has swept what all others left.
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert len(list(tmp_path.iterdir())) == files


def test_the_models_of_these_tests_are_pairs_of_files(made, runs, tmp_path):
    assert runs(commands(made, tmp_path)["apply"][0]) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".data", ".onnx"]
