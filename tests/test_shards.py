"""Parts of the data measured apart, by the verb, by commands, and by processes, against one measurement."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from torch_models import read_named

import lampq
from lampq.cli import main
from lampq.core.values.errors import RecordError
from lampq.core.values.merge import merge
from lampq.core.values.profile import Profile
from lampq.core.values.shard import Shard

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
"""
MEASURE = {"bits": (2, 4, 8), "fisher_draws": 2, "seed": 5}


def assert_same(merged, whole, *, fisher=1e-4):
    """All measurements, but for the rounding of float32 logits in batches of another size."""
    assert (merged.samples, merged.shard) == (whole.samples, None)
    np.testing.assert_allclose(merged.array("signature"), whole.array("signature"), rtol=1e-4, atol=1e-5)
    gram = whole.array("gram")
    np.testing.assert_allclose(merged.array("gram"), gram, rtol=1e-3, atol=1e-6 * gram.max())
    np.testing.assert_allclose(merged.kl, whole.kl, rtol=1e-4, atol=1e-9)
    np.testing.assert_array_equal(merged.weight_error, whole.weight_error)
    for mine, theirs in zip(merged.layers, whole.layers, strict=True):
        assert mine.fisher == pytest.approx(theirs.fisher, rel=fisher)
        assert mine.macs == theirs.macs
        for name in ("mean", "std", "min", "max"):
            found, expected = getattr(mine.activation, name), getattr(theirs.activation, name)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        assert mine.activation.count == theirs.activation.count


@pytest.mark.parametrize("fisher", ["true", "empirical", "forward"])
def test_shards_add_up_to_the_whole(fisher):
    model, _ = read_named("packed")
    batch = np.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(np.float32)
    options = {**MEASURE, "fisher": fisher, "labels": np.arange(7) % 4 if fisher == "empirical" else None}
    whole = lampq.profile(model, batch, **options)
    parts = [lampq.profile(model, batch, shard=Shard(index=i, count=3), **options) for i in (2, 3, 1)]
    assert [part.samples for part in parts] == [2, 2, 3]
    # Forward passes divide the small difference of two predictions by a small step.
    assert_same(merge(parts), whole, fisher=1e-2 if fisher == "forward" else 1e-4)


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    x = np.random.default_rng(1).normal(size=(9, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    data = ["--data", str(tmp_path / "data.npz"), "--bits", "2,4,8", "--quiet"]
    return [f"{tmp_path / 'net.py'}:build", *data]


def test_commands_measure_parts_and_merge_them(net, tmp_path, capfd):
    assert main(["profile", *net, "-o", str(tmp_path / "whole.json")]) == 0
    paths = [str(tmp_path / f"{i}.json") for i in (1, 2)]
    for index, path in enumerate(paths, start=1):
        assert main(["profile", *net, "--shard", f"{index}/2", "-o", path]) == 0
    assert Profile.read(paths[0]).shard == Shard(index=1, count=2)
    capfd.readouterr()
    assert main(["merge", *reversed(paths), "--quiet", "-o", str(tmp_path / "merged.json")]) == 0
    assert capfd.readouterr().out.strip() == str(tmp_path / "merged.json")
    assert_same(Profile.read(tmp_path / "merged.json"), Profile.read(tmp_path / "whole.json"))
    assert json.loads((tmp_path / "merged.json").read_text())["provenance"]["merged"] == 2


def test_processes_of_torchrun_make_the_profile_of_one(net, tmp_path):
    assert main(["profile", *net, "-o", str(tmp_path / "whole.json")]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    told |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lampq.cli", "profile", *net, "-o", str(tmp_path / "together.json")]
    both = [
        subprocess.Popen(
            command, env=told | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [out.decode().strip() for out, _ in said] == [str(tmp_path / "together.json"), ""]
    assert_same(Profile.read(tmp_path / "together.json"), Profile.read(tmp_path / "whole.json"))


def test_what_does_not_belong_together_is_not_merged():
    model, batch = read_named("packed")

    def part(text, **options):
        return lampq.profile(model, batch, shard=Shard.parse(text), **{**MEASURE, **options})

    one, two = part("1/2"), part("2/2")
    for parts, message in (
        ([one], "of 2 shards, number 2 is missing"),
        ([one, one], "shard 1/2 is given twice"),
        ([one, part("2/3")], "different divisions cannot be merged: 1/2, 2/3"),
        ([one, part("2/2", seed=6)], "shards 1/2 and 2/2 differ in seed: 5 and 6"),
        ([one, part("2/2", fisher="forward")], "differ in fisher"),
        ([one, lampq.profile(model, batch, **MEASURE)], "only some are shards"),
        (
            [one, lampq.profile(model, batch[:3], shard=Shard.parse("2/2"), **MEASURE)],
            "are of different data",
        ),
        ([], "nothing to merge"),
    ):
        with pytest.raises(RecordError, match=message):
            merge(parts)
    assert merge([two, one]).samples == 5


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2", "1/0", "1.0/2"])
def test_malformed_shards_are_refused(text, net, tmp_path, capfd):
    with pytest.raises(RecordError, match="such as 2/4"):
        Shard.parse(text)
    with pytest.raises(SystemExit):
        main(["profile", *net, f"--shard={text}", "-o", str(tmp_path / "p.json")])
    assert "such as 2/4" in capfd.readouterr().err


def test_shards_without_samples_and_without_data_are_refused(net, tmp_path, capfd):
    out = ["-o", str(tmp_path / "p.json")]
    assert main(["profile", *net, "--shard", "10/10", *out]) == 2
    assert "shard 10/10 of 9 samples is empty" in capfd.readouterr().err
    assert main(["profile", net[0], "--no-data", "--quiet", "--shard", "1/2", *out]) == 2
    assert "shard 1/2 of no data" in capfd.readouterr().err


def test_torchrun_and_a_shard_are_one_too_many(net, tmp_path, capfd, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "x"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert main(["profile", *net, "--shard", "1/2", "-o", str(tmp_path / "p.json")]) == 2
    assert "torchrun divides the samples itself" in capfd.readouterr().err
