"""Work that was killed goes on from where it was, and ends as if nothing had happened."""

import resource

import numpy as np
import pytest
from onnx_graphs import batch_for, transformer
from test_killed_runs import Runs

from lampq.core.values import journal_file, staging
from lampq.core.values.errors import (
    AdapterError,
    BudgetError,
    OutputExistsError,
    RecordError,
    StateError,
    WorkerError,
)
from lampq.core.values.journal import NOWHERE, journal_of
from lampq.core.values.profile import Profile

# Syncs before a kill: among the first parts that are kept, and among those behind them.
KILLS = (5, 25)


@pytest.fixture(scope="module")
def runs():
    runs = Runs()
    yield runs
    runs.process.communicate()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    transformer(folder / "m.onnx")
    np.savez(folder / "x.npz", x=batch_for(8, 6, 16))
    np.savez(folder / "y.npz", x=batch_for(8, 6, 16, seed=2))
    return folder


def quantize(made, *more):
    data = ["--data", made / "x.npz", "--bits", "2-5", "--avg-bits", "3", "--quiet"]
    return ["quantize", made / "m.onnx", *data, *more]


def uninterrupted(tmp_path):
    """A folder for what a run writes that nobody kills."""
    (tmp_path / "whole").mkdir()
    return tmp_path / "whole"


def written(folder):
    """The quantized model in a folder, with the data beside it."""
    return {path.name: path.read_bytes() for path in folder.glob("q.*")}


COMMANDS = {
    "differences, rounds": [],
    "gradients": ["--measure", "gradients"],
    "update": ["--mode", "lampq", "--rounding", "nearest"],
    "forward passes": ["--fisher", "forward", "--rounds", "1"],
    "ranks": ["--ranks", "1,2", "--measure", "differences"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_again_and_again_quantize_writes_the_same_bytes(name, made, runs, tmp_path):
    out, whole, said = tmp_path / "q.onnx", uninterrupted(tmp_path) / "q.onnx", tmp_path / "said"
    assert runs([*quantize(made, *COMMANDS[name]), "-o", whole]) == 0
    state = tmp_path / "q.onnx.state"
    for kill in KILLS:
        assert runs([*quantize(made, *COMMANDS[name]), "-o", out], kill, every=0, said=str(said)) == -9
    assert "going on from" in said.read_text()
    assert runs([*quantize(made, *COMMANDS[name]), "-o", out], every=0) == 0
    assert written(tmp_path) == written(whole.parent)
    assert not state.exists()


MODULE = """
import torch
def build():
    torch.manual_seed(0)
    parts = (torch.nn.Linear(16, 24), torch.nn.GELU(), torch.nn.Linear(24, 24), torch.nn.ReLU(), torch.nn.Linear(24, 6))
    return torch.nn.Sequential(*parts)
"""


@pytest.mark.parametrize("measure", ["differences", "gradients"])
def test_pairs_of_widths_of_a_module_go_on_too(measure, runs, tmp_path):
    (tmp_path / "net.py").write_text(MODULE)
    np.savez(tmp_path / "x.npz", x=batch_for(12, 16))
    widths = ["--bits", "2-5", "--act-bits", "3-6", "--avg-bits", "3", "--measure", measure, "--quiet"]
    words = ["quantize", f"{tmp_path / 'net.py'}:build", "--data", tmp_path / "x.npz", *widths]
    out, whole = tmp_path / "q.safetensors", uninterrupted(tmp_path) / "q.safetensors"
    assert runs([*words, "-o", whole]) == 0
    for kill in (4, 9):
        assert runs([*words, "-o", out], kill, every=0) == -9
    assert runs([*words, "-o", out], every=0) == 0
    assert written(tmp_path) == written(whole.parent)


def test_a_profile_without_data_goes_on(made, runs, tmp_path):
    words = ["profile", made / "m.onnx", "--no-data", "--quiet", "-o"]
    assert runs([*words, tmp_path / "whole.json"]) == 0
    said = tmp_path / "said"
    assert runs([*words, tmp_path / "p.json"], 5, every=0) == -9
    assert runs([*words, tmp_path / "p.json"], every=0, said=str(said)) == 0
    assert said.read_text().count("\n") == 1
    whole, resumed = (
        Profile.read(tmp_path / name).weight_error.tobytes() for name in ("whole.json", "p.json")
    )
    assert whole == resumed


@pytest.fixture
def killed(made, runs, tmp_path):
    """The state that a killed run left, and how to go on: exit status and what was said."""
    out, said = tmp_path / "q.onnx", tmp_path / "said"
    assert runs([*quantize(made), "-o", out], 40, every=0) == -9

    def go_on(words):
        status = runs([*words, "-o", out], every=0, said=str(said))
        return status, said.read_text().strip().splitlines()

    return tmp_path / "q.onnx.state", go_on


@pytest.mark.parametrize(
    ("flags", "differs"),
    [
        (["--avg-bits", "4"], "another average bits"),
        (["--rounding", "nearest"], "another rounding"),
        (["--ranks", "1"], "another ranks"),
        (["--data", "y.npz"], "another data"),
    ],
)
def test_a_state_of_other_work_is_refused_in_one_line_and_kept(flags, differs, killed, made):
    state, go_on = killed
    before = state.read_bytes()
    status, lines = go_on([*quantize(made), *(made / word if word == "y.npz" else word for word in flags)])
    assert (status, len(lines)) == (2, 1)
    assert differs in lines[0]
    assert "pass --fresh" in lines[0]
    assert state.read_bytes() == before


def test_fresh_begins_anew(killed, made, runs, tmp_path):
    state, go_on = killed
    assert go_on([*quantize(made), "--avg-bits", "4", "--fresh"]) == (0, [])
    assert not state.exists()


def test_a_state_cut_short_is_said_in_one_line_and_the_rest_counts(killed, made, runs, tmp_path):
    state, go_on = killed
    folder, content = uninterrupted(tmp_path), state.read_bytes()
    assert runs([*quantize(made), "-o", folder / "q.onnx"]) == 0
    state.write_bytes(content[: len(content) * 2 // 3])
    status, lines = go_on(quantize(made))
    assert (status, len(lines)) == (0, 1)
    assert "was cut short" in lines[0]
    assert written(tmp_path) == written(folder)


def kept(path, content=b"", parts=3):
    """A journal of some parts, left by a kill, with other content if wanted."""
    with pytest.raises(ZeroDivisionError), journal_of(path, {"model": "a"}, tell=print) as journal:
        for number in range(parts):
            journal.put(f"part {number}", values=np.arange(number))
        raise ZeroDivisionError
    state = path.with_name(path.name + ".state")
    state.write_bytes(content or state.read_bytes())
    return state


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(journal_file, "_EVERY_S", 0)


def test_whatever_a_state_was_cut_to_its_whole_parts_are_read(at_once, tmp_path):
    path = tmp_path / "o"
    whole = kept(path).read_bytes()
    counts = []
    for length in range(len(whole) + 1):
        said = []
        (tmp_path / "o.state").write_bytes(whole[:length])
        with journal_of(path, {"model": "a"}, tell=said.append) as journal:
            known = [journal.get(f"part {n}", {"values": (None,)}) is not None for n in range(3)]
        assert known == sorted(known, reverse=True)
        assert len(said) <= 1
        counts.append(sum(known))
    assert counts == sorted(counts)
    assert counts[-1] == 3


@pytest.mark.parametrize("at", [0, 40, 200, -1])
def test_a_byte_that_is_wrong_loses_parts_and_never_changes_one(at, at_once, tmp_path):
    path = tmp_path / "o"
    content = bytearray(kept(path).read_bytes())
    content[at] ^= 1
    (tmp_path / "o.state").write_bytes(content)
    try:
        with journal_of(path, {"model": "a"}, tell=print) as journal:
            for number in range(3):
                part = journal.get(f"part {number}", {"values": (None,)})
                assert part is None or part["values"].tolist() == list(range(number))
    except RecordError as err:
        assert "pass --fresh" in str(err)


@pytest.mark.parametrize(
    "content", [b"dear", b"{}\n", b"lampq.state/1 []\n", b"lampq.state/2 {}\n", b"\0" * 99]
)
def test_what_is_no_state_is_refused_and_kept(content, tmp_path):
    state = tmp_path / "o.state"
    state.write_bytes(content)
    with (
        pytest.raises(RecordError, match="no state of a run"),
        journal_of(tmp_path / "o", {"model": "a"}, tell=print),
    ):
        pass
    assert state.read_bytes() == content


def test_parts_of_another_form_are_refused(at_once, tmp_path):
    kept(tmp_path / "o")
    with (
        pytest.raises(StateError, match="does not hold what this work keeps; pass --fresh"),
        journal_of(tmp_path / "o", {"model": "a"}, tell=print) as journal,
    ):
        journal.get("part 1", {"values": (7,)})
    assert (tmp_path / "o.state").exists()


@pytest.mark.parametrize(
    ("error", "stays"),
    [(BudgetError, False), (RecordError, False), (AdapterError, False), (WorkerError, True), (OSError, True)],
)
def test_a_refusal_ends_the_work_and_other_errors_do_not(error, stays, at_once, tmp_path):
    """Nobody goes on with what is refused: the command is changed, and its state would be in the way."""
    part = tmp_path / "o.1-of-2.state"
    with pytest.raises(error), journal_of(tmp_path / "o", {"model": "a"}, tell=print) as journal:
        journal.put("part", value=1.0)
        part.write_bytes(b"of a worker")
        assert (tmp_path / "o.state").exists()
        raise error("no plan fits the budget")
    assert (tmp_path / "o.state").exists() == part.exists() == stays


def test_a_state_belongs_to_one_run_at_a_time(at_once, tmp_path):
    with journal_of(tmp_path / "o", {}, tell=print) as journal:
        journal.put("part", value=1.0)
        with (
            pytest.raises(OutputExistsError, match="another run keeps"),
            journal_of(tmp_path / "o", {}, tell=print),
        ):
            pass


def test_a_disk_that_fills_up_is_said_once_and_loses_nothing(at_once, tmp_path):
    said, path = [], tmp_path / "o"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(ZeroDivisionError), journal_of(path, {"model": "a"}, tell=said.append) as journal:
        journal.put("small", values=np.zeros(9))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            journal.put("large", values=np.zeros(999))
            journal.put("large too", values=np.zeros(999))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        journal.put("late", values=np.zeros(9))
        raise ZeroDivisionError
    assert [line.partition(":")[0] for line in said] == [f"{path}.state cannot be written (File too large)"]
    with journal_of(path, {"model": "a"}, tell=said.append) as journal:
        known = [
            name for name in ("small", "large", "late") if journal.get(name, {"values": (9,)}) is not None
        ]
    assert known == ["small", "late"]


def test_without_a_file_nothing_is_remembered():
    NOWHERE.within("a").put("part", value=1.0)
    assert NOWHERE.within("a").get("part", {"value": ()}) is None
    assert float(NOWHERE.array("part", (), lambda: 2.0)) == 2


def test_states_are_not_among_the_hidden_files_that_runs_sweep(at_once, tmp_path):
    state = kept(tmp_path / "o.json")
    staging.sweep(tmp_path)
    assert state.exists()
