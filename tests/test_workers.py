"""Profiles that workers measure together, and workers that die."""

import os
import pickle
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import loky
import numpy as np
import pytest
from distributed import Client, LocalCluster
from onnx_graphs import batch_for, transformer

import lampq
from lampq.cli import main
from lampq.core.values.errors import MissingExtraError, WorkerError
from lampq.core.values.profile import Profile
from lampq.core.values.threads import own_threads
from lampq.verbs.workers import Processes, carry_out

SAMPLES = 9


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "m.onnx"
    transformer(path)
    np.savez(path.with_name("x.npz"), x=batch_for(SAMPLES, 6, 16))
    return path


@pytest.fixture(scope="module")
def alone(net):
    return measured(net)


@pytest.fixture(scope="module")
def commanded(net):
    """The profile of one process by the command line, which takes samples in another order."""
    out = net.with_name("alone.json")
    assert main([*profile_words(net), "-o", str(out)]) == 0
    return Profile.read(out)


def profile_words(net):
    return ["profile", str(net), "--data", str(net.with_name("x.npz")), "--bits", "2,4", "--quiet"]


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of Dask and their scheduler."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster


def measured(net, **work):
    return lampq.profile(lampq.read(net), batch_for(SAMPLES, 6, 16), bits=(2, 4), **work)


def assert_alike(one, other):
    assert one.samples == other.samples
    assert one.shard is other.shard is None
    assert one.tables.keys() == other.tables.keys()
    for name in ("kl", "gram", "weight_error", "payload_bytes"):
        np.testing.assert_allclose(one.array(name), other.array(name), rtol=2e-5, atol=1e-9)
    for a, b in zip(one.layers, other.layers, strict=True):
        np.testing.assert_allclose(a.fisher, b.fisher, rtol=1e-5)
        np.testing.assert_allclose(a.activation.std, b.activation.std, rtol=1e-5)


def test_threads_of_one_process_make_the_profile_of_one(net, alone):
    with ThreadPoolExecutor(3) as executor:
        assert_alike(measured(net, executor=executor), alone)


def test_loky_makes_the_profile_of_one(net, alone):
    with loky.ProcessPoolExecutor(2) as executor:
        assert_alike(measured(net, executor=executor), alone)


def test_two_workers_of_a_dask_cluster_make_the_profile_of_one(net, alone, cluster):
    with Client(cluster) as client, client.get_executor() as executor:
        assert_alike(measured(net, executor=executor), alone)


def test_the_command_line_shares_work_with_a_dask_cluster(net, commanded, cluster, tmp_path):
    out = tmp_path / "p.json"
    assert main([*profile_words(net), "--dask", cluster.scheduler_address, "-o", str(out)]) == 0
    assert_alike(Profile.read(out), commanded)


def test_workers_of_this_machine_make_the_profile_of_one_and_quantize(net, commanded, tmp_path):
    out, data = tmp_path / "q.onnx", str(net.with_name("x.npz"))
    sides = ["--profile-out", str(tmp_path / "p.json"), "--rounding", "nearest", "-o", str(out)]
    words = ["quantize", str(net), "--data", data, "--bits", "2,4", "--avg-bits", "3", "--quiet", *sides]
    assert main([*words, "--workers", "2"]) == 0
    assert_alike(Profile.read(tmp_path / "p.json"), commanded)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npz", ".onnx"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dask", "tcp://127.0.0.1:9"], "no Dask scheduler can be reached at tcp://127.0.0.1:9"),
        (["--dask", "nonsense://x"], "no Dask scheduler can be reached at nonsense://x"),
        (["--workers", "2", "--shard", "1/2"], "leave out the shard, or the workers"),
    ],
)
def test_what_cannot_be_shared_out_is_said_in_one_line(words, said, net, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("lampq.verbs.dask_workers._PATIENCE_S", 1)
    assert main([*profile_words(net), *words, "-o", str(tmp_path / "p.json")]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_model_whose_weights_were_replaced_cannot_be_shared_out(net):
    model = lampq.read(net)
    model = model.with_weights({model.layers()[0].name: model.weight(model.layers()[0].name)})
    with (
        ThreadPoolExecutor(2) as executor,
        pytest.raises(lampq.AdapterError, match="other processes cannot read it again"),
    ):
        lampq.profile(model, batch_for(SAMPLES, 6, 16), bits=(2, 4), executor=executor)


def dies_once(marker):
    """A task whose first worker dies."""
    if marker is not None and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def dies(_):
    os.kill(os.getpid(), signal.SIGKILL)


def refuses(_):
    raise lampq.RecordError("this cannot be")


def fails(_):
    raise KeyError("a bug")


def test_the_part_of_a_worker_that_dies_is_done_again(tmp_path):
    with Processes(2) as executor:
        tasks = [("part 1/2", str(tmp_path / "died")), ("part 2/2", None)]
        workers = carry_out(executor, dies_once, tasks)
    assert (tmp_path / "died").exists()
    assert len(set(workers)) == 2


@pytest.mark.parametrize(("function", "why"), [(dies, "BrokenProcessPool"), (fails, "KeyError: 'a bug'")])
def test_a_part_that_fails_twice_is_named(function, why):
    with Processes(2) as executor, pytest.raises(WorkerError, match=f"part 1/1 failed twice.*{why}"):
        carry_out(executor, function, [("part 1/1", None)])


def test_a_pool_that_takes_no_more_is_said():
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor,
        pytest.raises(WorkerError, match="part 1/1 cannot be given to a worker"),
    ):
        carry_out(executor, dies, [("part 1/1", None)])


def test_what_a_worker_refuses_is_not_tried_again():
    with Processes(2) as executor, pytest.raises(lampq.RecordError, match="this cannot be"):
        carry_out(executor, refuses, [("part 1/1", None)])


def threads_of(_):
    return own_threads()


def test_workers_of_this_machine_have_one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert own_threads() == 7
    with Processes(1) as executor:
        assert carry_out(executor, threads_of, [("part", None)]) == [1]
    assert own_threads() == 7


def test_errors_of_missing_packages_come_back_from_workers():
    err = pickle.loads(pickle.dumps(MissingExtraError("torch", "torch")))
    assert (str(err), err.extra) == (str(MissingExtraError("torch", "torch")), "torch")
