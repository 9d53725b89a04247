"""Odd surroundings: no terminal type, no colour, few columns, no home, an old encoding, a reader that leaves."""

import os
import pty
import re
import subprocess
import sys

import pytest
from records import make_profile

import lampq
from lampq.console import progress, tables
from lampq.core.values.progress import quiet

SURROUNDINGS = {
    "no terminal type": {"TERM": None},
    "a dumb terminal": {"TERM": "dumb"},
    "no colour": {"NO_COLOR": "1", "TERM": "xterm-256color"},
    "twelve columns": {"COLUMNS": "12", "TERM": "xterm"},
    "one column": {"COLUMNS": "1", "TERM": "xterm"},
    "no home": {"HOME": None},
    "a home that is not there": {"HOME": "/nowhere/at/all", "XDG_CACHE_HOME": "/nowhere/at/all"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Latin 1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    make_profile(3).with_tables(logit_delta=None).write(folder / "profile.json")
    return folder


def environment(changes):
    values = {**os.environ, "OMP_NUM_THREADS": "1", **changes}
    return {name: value for name, value in values.items() if value is not None}


def command(*words):
    return [sys.executable, "-m", "lampq.cli", *words]


def in_terminal(words, folder, changes):
    """Exit status, standard output, and what a pseudo-terminal gets of a command."""
    leader, follower = pty.openpty()
    run = subprocess.Popen(
        command(*words), cwd=folder, env=environment(changes), stdout=subprocess.PIPE, stderr=follower
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            block = os.read(leader, 1 << 16)
        except OSError:
            break
        if not block:
            break
        shown += block
    os.close(leader)
    stdout = run.communicate()[0]
    return run.returncode, stdout, shown


PLAN = ("plan", "profile.json", "--avg-bits", "3", "--force")


@pytest.mark.parametrize("name", sorted(SURROUNDINGS))
def test_plans_are_made_and_shown_in_any_surroundings(name, work):
    """In a pseudo-terminal, where colours and widths are asked for."""
    out = f"{sorted(SURROUNDINGS).index(name)}-plän.json"
    code, stdout, shown = in_terminal((*PLAN, "-o", out), work, SURROUNDINGS[name])
    assert code == 0, shown.decode(errors="replace")
    assert (work / out).is_file() and stdout.strip()
    text = shown.decode("latin-1" if name == "Latin 1" else "utf-8", errors="replace")
    assert "Traceback" not in text
    assert len(re.sub(r"\W", "", text)) > 100
    if name in ("no colour", "a dumb terminal", "no terminal type"):
        assert not re.search(r"\x1b\[3\d|\x1b\[38", text)


NOTHING = {
    **dict.fromkeys(("TERM", "HOME", "LANG", "XDG_CACHE_HOME")),
    **SURROUNDINGS["ASCII"],
    "COLUMNS": "20",
    "NO_COLOR": "1",
}
VERBS = {
    "sweep": ("profile.json", "--plot", "s.png", "-o", "s.csv"),
    "inspect": ("plan.json", "--why", "--profile", "profile.json"),
    "report": ("plan.json", "--profile", "profile.json", "-o", "r.html"),
    "compare": ("plan.json", "plan.json", "--all"),
    "match": ("plan.json", "profile.json"),
    "merge": ("profile.json", "-o", "merged.json"),
    "convert": ("plan.json", "--to", "csv", "-o", "plan.csv"),
    "completion": ("bash",),
    "doctor": (),
}


@pytest.fixture(scope="module")
def planned(work):
    lampq.plan(lampq.Profile.read(work / "profile.json"), average_bits=3).write(work / "plan.json")
    return work


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_works_with_nothing_around_it(verb, planned):
    code, stdout, shown = in_terminal((verb, *VERBS[verb]), planned, NOTHING)
    text = (stdout + shown).decode("ascii")
    assert code == 0, text
    assert "Traceback" not in text and "\x1b" not in text and len(text) > 5


@pytest.mark.parametrize(("terminal", "bars"), [("xterm", True), ("dumb", False), (None, False), ("", False)])
def test_bars_move_where_the_terminal_says_that_it_can(terminal, bars, monkeypatch):
    monkeypatch.setattr(progress.Console, "is_terminal", True)
    if terminal is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", terminal)
    with progress.progress_bar(enabled=True) as report:
        assert (report is not quiet) == bars


@pytest.mark.parametrize(("terminal", "colours"), [("xterm", True), ("dumb", False), (None, False)])
def test_tables_have_no_marks_where_nobody_says_what_the_terminal_can_do(terminal, colours, monkeypatch):
    monkeypatch.setattr(tables.Console, "is_terminal", True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if terminal is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", terminal)
    assert (tables.console().color_system is not None) == colours


def test_a_reader_that_leaves_ends_it_quietly(work):
    for words in (("completion", "bash"), (*PLAN, "--json", "-o", "x.json")):
        run = subprocess.Popen(
            command(*words), cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        run.stdout.close()
        assert "Traceback" not in run.stderr.read()
        run.stderr.close()
        assert run.wait() == 0


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_do_not_keep_a_plan_from_being_made(streams, work):
    line = f'"{sys.executable}" -m lampq.cli {" ".join(PLAN)} -o closed.json {streams}'
    run = subprocess.run(["bash", "-c", line], cwd=work, capture_output=True, text=True)
    assert (work / "closed.json").is_file()
    assert "Traceback" not in run.stderr
    (work / "closed.json").unlink()
