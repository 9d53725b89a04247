"""Temporary files and files of two parts: what is swept, what is kept, and that no reader sees a mixture."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from records import make_profile

from lampq.core.values import profile_files, publishing, staging
from lampq.core.values.errors import OutputError, RecordError
from lampq.core.values.files import write_text
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.profile import Profile

OTHER_HOST = ".lampq-00000000-abcdefgh.json"


def own_leftover(folder, *, directory=False):
    """What a killed run of this machine leaves: a temporary file that nobody holds."""
    path = folder / f".lampq-{staging._HOST}-abcdefgh{'' if directory else '.json'}"
    if directory:
        path.mkdir()
        (path / "inner.onnx").write_text("half")
    else:
        path.write_text("half")
    return path


@pytest.mark.parametrize("directory", [True, False])
def test_the_next_run_sweeps_what_a_killed_one_left(directory, tmp_path):
    own_leftover(tmp_path, directory=directory)
    write_text(tmp_path / "out.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.parametrize("directory", [True, False])
def test_files_of_a_run_that_lives_are_never_swept(directory, tmp_path):
    with staging.temporary(tmp_path, directory=directory) as live:
        os.utime(live, (0, 0))
        write_text(tmp_path / "out.txt", "whole")
        assert live.exists()
    assert not live.exists()


def test_a_run_need_not_wait_for_itself_in_its_own_folder(tmp_path, monkeypatch):
    """It holds the lock on it already, and no lock twice."""
    monkeypatch.setattr(staging, "_LOCK_WAIT_S", 0)
    with staging.temporary(tmp_path, directory=True) as folder, staging.locked(folder) as alone:
        assert alone


def test_files_of_other_machines_are_swept_when_they_are_old(tmp_path):
    path = tmp_path / OTHER_HOST
    path.write_text("half")
    staging.sweep(tmp_path)
    assert path.exists()
    before = time.time() - staging.OLD_S - 60
    os.utime(path, (before, before))
    staging.sweep(tmp_path)
    assert not path.exists()


def test_nothing_else_is_swept(tmp_path):
    names = (
        ".lampq-mine",
        ".lampq-notes.json",
        f".lampq-{staging._HOST}-short",
        ".p.json.abcdefgh.json",
        "lampq-x",
    )
    for name in names:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / f".lampq-{staging._HOST}-abcdefgh").symlink_to(tmp_path / "lampq-x")
    staging.sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(names) + 1


def test_without_locks_the_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "fcntl", None)
    young, old = own_leftover(tmp_path), tmp_path / f".lampq-{staging._HOST}-hgfedcba"
    old.write_text("half")
    os.utime(old, (0, 0))
    make_profile().write(tmp_path / "p.json")
    assert young.exists()
    assert not old.exists()
    assert Profile.read(tmp_path / "p.json").samples == 6


def test_arrays_that_another_file_names_are_kept(tmp_path):
    first = make_profile(0)
    first.write(tmp_path / "p.json")
    (tmp_path / "p.json").rename(tmp_path / "before.json")
    make_profile(1).write(tmp_path / "p.json")
    make_profile(2).write(tmp_path / "p.json", force=True)
    np.testing.assert_array_equal(Profile.read(tmp_path / "before.json").weight_error, first.weight_error)
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_files_that_only_look_like_arrays_are_kept(tmp_path):
    make_profile(0).write(tmp_path / "p.json")
    for name in ("p.0123456789ab.npz", "p.0123456789abc.npz", "p.x.npz", "pq.0123456789ab.npz"):
        (tmp_path / name).write_text("mine")
    make_profile(1).write(tmp_path / "p.json", force=True)
    assert len(list(tmp_path.glob("*.npz"))) == 5


def test_a_profile_cannot_name_a_file_for_removal(tmp_path):
    (tmp_path / "dear.npz").write_text("")
    (tmp_path / "p.npz").write_text("")
    for name, digest in (("dear.npz", ""), ("p.npz", ""), ("p.npz", "e3b0c442"), ("../p.npz", None), (7, 7)):
        (tmp_path / "p.json").write_text(json.dumps({"arrays": {"file": name, "sha256": digest}}))
        make_profile().write(tmp_path / "p.json", force=True)
        assert {"dear.npz", "p.npz"} <= {path.name for path in tmp_path.iterdir()}


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from records import make_profile
profiles = [make_profile(seed, kinds=("fc1",)) for seed in {seeds}]
for turn in range({turns}):
    profiles[turn % 2].write({path!r}, force=True)
"""


def test_readers_never_see_a_mixture_of_what_two_runs_write(tmp_path):
    path, tests = tmp_path / "p.json", str(Path(__file__).parent)
    make_profile(0, kinds=("fc1",)).write(path)
    known = {make_profile(s, kinds=("fc1",)).weight_error.tobytes(): s for s in range(4)}
    codes = [WRITER.format(tests=tests, seeds=seeds, turns=150, path=str(path)) for seeds in ((0, 1), (2, 3))]
    writers = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        profile = Profile.read(path)
        assert known[profile.weight_error.tobytes()] == profile.provenance["seed"]
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 0
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".npz"]


def test_arrays_that_one_run_removed_and_another_put_back_are_read(tmp_path, monkeypatch):
    made = make_profile()
    made.write(tmp_path / "p.json")

    def gone_once(path, digest):
        monkeypatch.undo()
        raise RecordError("they are gone")

    monkeypatch.setattr(profile_files, "_read_arrays", gone_once)
    np.testing.assert_array_equal(Profile.read(tmp_path / "p.json").weight_error, made.weight_error)


def test_a_profile_without_its_arrays_says_so(tmp_path):
    make_profile().write(tmp_path / "p.json")
    (arrays,) = tmp_path.glob("*.npz")
    arrays.unlink()
    with pytest.raises(
        RecordError,
        match=f"its arrays {arrays.name} cannot be read \\(No such file or directory\\); keep the two files together",
    ):
        Profile.read(tmp_path / "p.json")


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_whole(exchanges, tmp_path, monkeypatch):
    if not exchanges:
        monkeypatch.setattr(publishing, "_exchange", lambda *_: False)
    for text in "ab":
        with publishing.atomic_folder(tmp_path / "out") as folder:
            (folder / text).write_text(text)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [text]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_where_folders_cannot_change_places_the_old_one_stays_in_sight(tmp_path, monkeypatch):
    with publishing.atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
    monkeypatch.setattr(publishing, "_exchange", lambda *_: False)
    seen = []
    rename = Path.rename

    def watched(self, target):
        seen.append(sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    with publishing.atomic_folder(tmp_path / "out") as folder:
        (folder / "b").write_text("b")
    assert seen == [["out"], ["out.old"]]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="cannot be written to; name another"):
        refuse_clashes([Output(path=tmp_path / "x")], force=False)
