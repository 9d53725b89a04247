"""Hostile PyTorch files, all read in one process that may crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch_hostile


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """What the files are, what came of each, the memory used, and the process."""
    folder = tmp_path_factory.mktemp("hostile")
    canary = folder.with_name("canary")
    module = folder.with_name("modules")
    module.mkdir()
    (module / "canary_module.py").write_text(f"open({str(canary)!r}, 'w')\nx = int\n")
    names = torch_hostile.write_all(folder, canary)
    script = Path(torch_hostile.__file__)
    paths = os.pathsep.join([str(script.parent), str(module)])
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=paths),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert not canary.exists(), "code was run"
    return names, lines[:-1], lines[-1].get("bytes"), done


def test_no_file_ends_the_process_or_writes_a_word(judged):
    names, lines, _, done = judged
    assert done.returncode == 0
    assert done.stderr == ""
    assert {line["file"] for line in lines} == {"00000.pt2", *names}


def test_every_file_is_read_or_refused_in_one_line(judged):
    names, lines, _, _ = judged
    assert [
        (names.get(line["file"]), line["outcome"])
        for line in lines
        if line["outcome"] not in ("read", "refused")
    ] == []


def test_every_attack_is_refused_by_name(judged):
    names, lines, _, _ = judged
    read = {names[line["file"]] for line in lines if line["outcome"] == "read" and line["file"] in names}
    assert [name for name in read if not torch_hostile.HARMLESS.fullmatch(name)] == []


def test_no_file_takes_long_or_much_memory(judged):
    names, lines, grown, _ = judged
    assert [(names.get(line["file"]), line["seconds"]) for line in lines if line["seconds"] > 5] == []
    assert grown < 500 << 20
