"""What the operating system refuses, and interrupts: one line, no traceback, nothing lost."""

import itertools
import os
import resource
import signal
import subprocess
import sys

import pytest
from onnx_graphs import transformer
from records import make_profile

from lampq.cli import main
from lampq.core.values.plan import Plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    transformer(folder / "m.onnx")
    assert (
        main(["profile", str(folder / "m.onnx"), "--no-data", "--quiet", "-o", str(folder / "p.json")]) == 0
    )
    words = ["plan", str(folder / "p.json"), "--avg-bits", "3", "--quiet", "-o", str(folder / "plan.json")]
    assert main(words) == 0
    return folder


def lampq(*words, **options):
    """The command in a process of its own."""
    words = [sys.executable, "-m", "lampq.cli", *(os.fsencode(word) for word in words)]
    return subprocess.run(words, capture_output=True, timeout=120, **options)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["profile", "m.onnx", "--no-data"], "o.json"),
        (["plan", "p.json", "--avg-bits", "3"], "o.json"),
        (["apply", "m.onnx", "plan.json"], "o.onnx"),
        (["report", "plan.json"], "o.html"),
    ],
)
def test_a_full_disk_is_said_in_one_line_and_loses_nothing(words, name, made, tmp_path):
    (tmp_path / name).write_text("dear")
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))  # noqa: E731
    done = lampq(*words, "-o", tmp_path / name, "--force", "--quiet", cwd=made, preexec_fn=small)
    lines = done.stderr.decode().strip().splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (2, b"", 1), done.stderr.decode()
    assert f"{name} cannot be written: File too large; nothing was changed" in lines[0]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "dear")]


def test_names_that_are_no_text_are_read_written_and_printed(made, tmp_path):
    folder = os.fsencode(tmp_path)
    model, profile, plan = made / "m.onnx", folder + b"/p\xff.json", folder + b"/q\xff.json"
    budget = ["--avg-bits", "3", "-o", plan]
    commands = [
        (["profile", model, "--no-data", "-o", profile], profile),
        (["plan", profile, *budget], plan),
        (["report", plan, "--profile", profile, "-o", folder + b"/r\xff.html"], folder + b"/r\xff.html"),
        (["apply", model, plan, "-o", folder + b"/o\xff.onnx"], folder + b"/o\xff.onnx"),
    ]
    for words, out in commands:
        done = lampq(*words)
        assert (done.returncode, done.stdout.strip()) == (0, out), done.stderr.decode(errors="replace")
    done = lampq("inspect", folder + b"/o\xff.onnx")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"is no text; rename the file" in done.stderr


def test_standard_output_that_is_full_is_said_in_one_line(made):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        words = [sys.executable, "-m", "lampq.cli", "inspect", made / "p.json", "--json"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stderr.decode().strip()) == (2, "lampq inspect: No space left on device")


INTERRUPTED_IMPORT = """
import builtins, os, signal, sys
# Shells have what they start in the background ignore interrupts, tests too.
signal.signal(signal.SIGINT, signal.default_int_handler)
imported = builtins.__import__
def interrupted(name, *rest):
    if name == {name!r}:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            {then}
    return imported(name, *rest)
from lampq.cli import main
from lampq.core.values.plan import Plan
builtins.__import__ = interrupted
sys.exit(main({words!r}))
"""


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("lampq.console.program", "raise"),
        *itertools.product(
            ("lampq.console.arguments", "numpy", "rich.console", "onnxruntime"),
            ("raise", "raise ImportError('broken')", "raise SystemError('C API')"),
        ),
    ],
)
def test_an_interrupt_during_an_import_is_one_line(name, then, made, tmp_path):
    words = ["profile", str(made / "m.onnx"), "--no-data", "-o", str(tmp_path / "o.json")]
    code = INTERRUPTED_IMPORT.format(name=name, then=then, words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 130
    assert done.stderr.decode().splitlines()[0].endswith("interrupted")
    assert len(done.stderr.decode().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_handler_of_interrupts_is_given_back():
    before = signal.getsignal(signal.SIGINT)
    assert main(["--version"]) == 0
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("err", "said"),
    [
        (PermissionError(13, "Permission denied", "some/file"), "some/file: Permission denied"),
        (OSError("odd"), "odd"),
        (MemoryError(), "there is not enough memory"),
    ],
)
def test_errors_of_the_system_are_one_line(err, said, monkeypatch, capfd, tmp_path):
    def fail(*_):
        raise err

    make_profile().write(tmp_path / "p.json")
    monkeypatch.setattr("lampq.console.commands.sweep.Profile", fail)
    monkeypatch.setattr("lampq.console.commands.sweep.Profile.read", fail, raising=False)
    assert main(["sweep", str(tmp_path / "p.json"), "-o", str(tmp_path / "o.csv")]) == 2
    assert capfd.readouterr().err.strip() == f"lampq sweep: {said}"


def test_bugs_still_show_their_traceback(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("lampq.console.clashes.refuse", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["sweep", "p.json", "-o", str(tmp_path / "o.csv")])


def test_limits_beyond_all_integers_limit_nothing(tmp_path, capfd):
    make_profile().write(tmp_path / "p.json")
    words = [
        "plan",
        str(tmp_path / "p.json"),
        "--avg-bits=1e30",
        "--mode",
        "kl",
        "-o",
        str(tmp_path / "o.json"),
    ]
    assert main(words) == 0, capfd.readouterr().err
    assert set(Plan.read(tmp_path / "o.json").widths.values()) == {8}


@pytest.mark.parametrize(
    "flag", ["--seed=-1", "--seed=4294967296", "--seed=x", "--size=1e99GB", "--max-bops=1e30"]
)
def test_numbers_that_cannot_be_are_refused(flag, tmp_path, capfd):
    make_profile().write(tmp_path / "p.json")
    try:
        code = main(["plan", str(tmp_path / "p.json"), flag, "-o", str(tmp_path / "o.json")])
    except SystemExit as left:
        code = left.code
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert said.startswith("lampq plan: ")
