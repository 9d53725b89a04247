"""What messages tell people to do can be done: flags, keywords, verbs, extras, scripts and pages exist."""

import argparse
import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lampq
from lampq.adapters.format import ModelFormat
from lampq.adapters.quiet_import import quiet_import
from lampq.console.arguments import build_parser
from lampq.console.config import parsed
from lampq.core.values import errors
from lampq.core.values.errors import AdapterError, LampqError, MissingExtraError
from lampq.core.values.messages import reason, root_cause

ROOT = Path(__file__).parent.parent
FOLDERS = ("lampq_core", "adapters", "solvers", "conversions", "verbs", "console", "testing")
KINDS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LampqError)
}
KINDS |= {"ArgumentTypeError"}
EXTRAS = parsed((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
GAP = "\x00"


def sources():
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def text_of(node):
    """A string with a gap for each value that is put into it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else GAP
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return GAP


def texts(tree):
    """Every string, whole: not the pieces of one with values in it."""
    whole = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    pieces = {id(part) for node in whole for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in pieces:
            yield text_of(node)


def messages(tree):
    """Every text within a raise statement of an error of ours."""
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            yield from texts(call) if name in KINDS else ()


def all_messages():
    return [(path.name, text) for path in sources() for text in messages(ast.parse(path.read_text()))]


def all_strings():
    """Hints that reach messages by way of constants and notes too; documentation included."""
    return [(path.name, text) for path in sources() for text in texts(ast.parse(path.read_text()))]


def flags(text):
    return re.findall(rf"(?<![\w-])--[a-z][a-z-]*(?![\w{GAP}-])", text)


def parsers():
    (verbs,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return verbs.choices


def test_every_flag_that_a_text_names_exists():
    known = {
        option
        for parser in parsers().values()
        for action in parser._actions
        for option in action.option_strings
    }
    known |= {"--version", "--force-reinstall"}
    named = {(flag, place) for place, text in all_strings() for flag in flags(text)}
    assert len(named) > 60
    assert sorted((flag, place) for flag, place in named if flag not in known) == []


def test_every_keyword_that_a_message_names_exists():
    functions = [function for name in lampq.__all__ if inspect.isfunction(function := getattr(lampq, name))]
    known = {name for function in functions for name in inspect.signature(function).parameters}
    # As the command line writes them: head=8, tokens=16 and the like are examples of layers and inputs.
    examples = {"head", "fc1", "qkv", "tokens"}
    named = {
        (word, place) for place, text in all_messages() for word in re.findall(r"(?<![\w-])([a-z_]+)=", text)
    }
    assert ("force", "outputs.py") in named
    assert sorted((word, place) for word, place in named if word not in known | examples) == []


def test_every_verb_extra_and_page_that_a_text_names_exists():
    verbs, extras = set(parsers()), set(EXTRAS)
    for place, text in all_strings():
        assert set(re.findall(r"`lampq ([a-z]+)", text)) <= verbs, (place, text)
        assert set(re.findall(r"lampq\[([a-z]+)\]", text)) <= extras, (place, text)
        for page in re.findall(r"docs/[\w-]+\.md", text):
            assert (ROOT / page).is_file(), (place, page)


def test_every_extra_that_is_missed_exists():
    asked = [
        (call.args[0].value, call.args[1].value)
        for path in sources()
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") == "MissingExtraError"
        and all(isinstance(argument, ast.Constant) for argument in call.args[:2])
    ]
    assert len(asked) > 5
    for package, extra in asked:
        assert any(package.lower() in need.lower() for need in EXTRAS[extra]), (package, extra)


def test_the_walk_sees_flags_and_keywords():
    tree = ast.parse('raise PlanError(f"{x}: give --no-such-flag (no_such={y}) or --max-{z}") from err')
    (text,) = messages(tree)
    assert flags(text) == ["--no-such-flag"]
    assert re.findall(r"([a-z_]+)=", text) == ["no_such"]


def test_the_first_cause_is_told():
    try:
        try:
            try:
                raise ModuleNotFoundError("No module named 'rust_thing'")
            except ImportError as err:
                raise RuntimeError("Failed to import BertModel") from err
        except RuntimeError as err:
            raise ImportError("look above") from err
    except ImportError as err:
        assert reason(root_cause(err)) == "No module named 'rust_thing'"
    lone = ValueError("alone")
    lone.__context__ = lone
    assert root_cause(lone) is lone


def test_a_class_that_cannot_be_imported_tells_why(tmp_path, monkeypatch):
    from lampq.adapters.torch import hugging_face

    class Library:
        __version__ = "9"

        def __getattr__(self, name):
            raise ModuleNotFoundError(f"Could not import {name}") from ImportError("numpy is 0.1, needs 2")

    monkeypatch.setattr(hugging_face, "import_transformers", Library)
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    with pytest.raises(AdapterError, match=r"cannot import BertModel: numpy is 0\.1, needs 2$"):
        hugging_face.load(tmp_path)


def test_a_package_that_is_there_but_broken_is_not_called_missing():
    told = str(MissingExtraError("Pillow", "images", ImportError("libjpeg.so:\ncannot open")))
    assert told == (
        "Pillow cannot be imported (libjpeg.so: cannot open); run: pip install --force-reinstall 'lampq[images]'"
    )
    form = ModelFormat(
        name="x", endings=(".x",), read=lambda path, **_: None, extra="onnx", packages={"xx": "XX"}
    )
    with pytest.raises(AdapterError, match="cannot be read here: DLL load failed"), form.importing():
        raise ImportError("DLL load failed", name="xx._native")


def test_what_frameworks_print_at_import_stays_out(tmp_path):
    (tmp_path / "loud.py").write_text(
        "import os, sys, warnings\nprint('hello')\nprint('hello', file=sys.stderr)\nos.write(1, b'from C')\n"
        "os.write(2, b'from C')\nwarnings.warn('the future')\nanswer = 42\n"
    )
    code = "from lampq.adapters.quiet_import import quiet_import\nwith quiet_import(): import loud\nprint(loud.answer)"
    for streams in ("", "import os; os.close(2)\n"):
        run = subprocess.run(
            [sys.executable, "-c", streams + code], cwd=tmp_path, capture_output=True, text=True
        )
        assert (run.returncode, run.stdout, run.stderr) == (0, "42\n", "")
    with pytest.raises(ImportError, match="not_here"), quiet_import():
        raise ImportError("not_here")
