"""Hostile files of every kind: no code of theirs runs, none ends the process, each keeps its bounds."""

import contextlib
import io
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from fuzzing import mutate
from hostile_files import mutable, write_all

SECONDS, BYTES = 2.0, 500 << 20
MUTATIONS = 10
# By the clock, a file may take this much longer than its processor time: the machine may be busy.
_PATIENCE = 20
# What reaches the terminal besides text: line ends, tabs, and nothing else.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder, its commands, and what came of them and of damaged copies, in one process for all."""
    folder = tmp_path_factory.mktemp("hostile")
    commands = write_all(folder)
    (folder / "commands.json.txt").write_text(json.dumps(commands))
    outcomes, ending = watched(folder)
    return folder, commands, outcomes, ending


def test_nothing_runs_and_nothing_ends_the_process(hostile):
    folder, _, _, ending = hostile
    assert ending == 0
    assert not (folder / "canary").exists()


def test_hostile_files_are_refused_or_read(hostile):
    _, commands, outcomes, _ = hostile
    assert commands.keys() <= outcomes.keys()
    assert len(outcomes) > len(commands) + 40 * MUTATIONS
    assert {
        name: outcome for name, (outcome, _) in outcomes.items() if outcome not in ("read", "refused")
    } == {}


def test_none_takes_longer_than_it_may(hostile):
    assert {name: seconds for name, (_, seconds) in hostile[2].items() if seconds > SECONDS} == {}


@pytest.mark.parametrize(
    "name", ["m.onnx", "x.npz", "profile.json", "plan.json", "vit.tflite", "rows.csv", "images.onnx"]
)
def test_sound_files_among_them_are_read(hostile, name):
    assert hostile[2][name][0] == "read"


def watched(folder):
    """Outcome and seconds by file, and the exit status, of `work` in a process that may crash or hang."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_hostile_files as t; t.work(*sys.argv[2:])"
    )
    arguments = [str(Path(__file__).parent), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    outcomes, timer = {}, threading.Timer(60, child.kill)
    timer.start()
    for line in child.stdout:
        timer.cancel()
        name, outcome, seconds = json.loads(line)
        outcomes[name] = (outcome, seconds)
        timer = threading.Timer(_PATIENCE * SECONDS, child.kill)
        timer.start()
    timer.cancel()
    child.stdout.close()
    return outcomes, child.wait()


def work(folder):
    """Run the commands, a line of JSON each: name, outcome, processor seconds."""
    os.chdir(folder)
    out = sys.stdout
    commands = json.loads(Path("commands.json.txt").read_text())
    warnings.simplefilter("error")

    def report(name, outcome, seconds=0.0):
        print(json.dumps([name, outcome, seconds]), file=out, flush=True)

    # What is imported, and the pools that are started, are not the files' doing.
    for name in ("m.onnx", "x.npz", "vit.tflite", "images.onnx", "i_frames.gif"):
        judged(commands[name])
    limit = _bytes_of("VmData") + BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for name, words in itertools.chain(commands.items(), mutations(commands)):
        report(name, "started")
        began = time.process_time()
        outcome = judged(words)
        report(name, outcome, time.process_time() - began)


def mutations(commands):
    """Damaged copies, in the place of the file that the command names."""
    for name in mutable("."):
        if name not in commands or name in _SLOW:
            continue
        sound = Path(name).read_bytes()
        for seed in range(MUTATIONS):
            Path(name).unlink()
            Path(name).write_bytes(mutate(sound, seed))
            yield f"{name} {seed}", commands[name]
        Path(name).write_bytes(sound)


# A second each, which is what their bound says: an endless loop, and expressions without end.
_SLOW = ("endless.onnx", "c_torchao.json", "c_default.json", "c_groups.json", "c_recipe.json")


def judged(words):
    """`read` or `refused` where a command kept to the rules, else what it did."""
    from lampq.cli import main

    streams = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            status = main(words)
    except BaseException as err:
        return f"{type(err).__name__}: {str(err)[:300]!r}"
    shown, said = (stream.getvalue() for stream in streams)
    if _CONTROL.search(shown + said):
        return f"control characters: {(shown + said)[:300]!r}"
    if status == 0:
        return "read"
    if status != 2 or said.count("\n") != 1 or len(said) > 2000:
        return f"status {status} and {said[:500]!r}"
    return "refused"


def _bytes_of(field):
    return 1024 * int(re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
