"""Outputs that would eat inputs or each other: refused before any work, with --force or without."""

import argparse
import json
import os
import socket
from pathlib import Path

import onnx
import pytest
from onnx_graphs import transformer
from records import make_profile

from lampq.cli import main
from lampq.console import clashes
from lampq.console.arguments import build_parser
from lampq.console.commands import SUMMARIES
from lampq.core.values.errors import OutputError, OutputExistsError
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.profile import Profile

# What arguments that name files are called in the help.
NAMES_OF_FILES = {"MODEL", "FILE", "DATA", "PROFILE", "PLAN", "CSV", "PNG", "FOLDER"}


def parsers():
    """Verb -> its parser."""
    (verbs,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return verbs.choices


def command(verb, **values):
    """The shortest command line of a verb, with some arguments given."""
    words = [verb]
    for action in parsers()[verb]._actions:
        value = values.get(action.dest)
        if value is None and not action.required:
            continue
        ending = ".json" if (verb, action.dest) == ("profile", "out") else ""
        text = str(value or (action.choices or [f"some-{action.dest}{ending}"])[0])
        words += [action.option_strings[0], text] if action.option_strings else [text]
    if verb in ("profile", "quantize", "eval") and "data" not in values:
        words += ["--no-data"] if verb == "profile" else ["--data", "some-data"]
    budget = ["--avg-bits", "3"] if verb in ("plan", "quantize") else []
    return [*words, *budget, "--force"] if "force" in dir_of(verb) else words


def dir_of(verb):
    return {action.dest for action in parsers()[verb]._actions}


def files_below(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(capfd, folder, *words):
    """What is said of a command that fails and changes nothing."""
    before = files_below(folder)
    code = main([str(word) for word in words])
    err = capfd.readouterr().err.strip()
    assert (code, files_below(folder)) == (2, before)
    assert "\n" not in err
    return err


def test_every_argument_that_names_a_file_is_known_as_read_or_written():
    for verb, parser in parsers().items():
        for action in parser._actions:
            if (
                action.type is Path
                or action.metavar in NAMES_OF_FILES
                or not (action.option_strings or action.choices)
            ):
                assert action.dest in {**clashes.READS, **clashes.WRITES}, f"{verb} {action.dest}"


@pytest.mark.parametrize("verb", list(SUMMARIES))
def test_every_verb_goes_through_the_one_function_before_it_works(verb, monkeypatch, capfd):
    def stop(*_, **__):
        raise OutputError("seen")

    monkeypatch.setattr(clashes, "refuse_clashes", stop)
    assert main(command(verb)) == 2
    assert capfd.readouterr().err.strip() == f"lampq {verb}: seen"


PAIRS = [
    (verb, read, written)
    for verb in parsers()
    for read in sorted(set(clashes.READS) & dir_of(verb))
    for written in sorted(set(clashes.WRITES) & dir_of(verb))
    # What the demo writes is a folder.
    if verb != "demo"
]


@pytest.mark.parametrize(("verb", "read", "written"), PAIRS)
def test_no_output_of_any_verb_replaces_any_of_its_inputs(verb, read, written, tmp_path, capfd):
    (tmp_path / "f.json").write_text("" if read == "config" else "{}")
    os.link(tmp_path / "f.json", tmp_path / "hard.json")
    (tmp_path / "soft.json").symlink_to("f.json")
    for name in ("f.json", "hard.json", "soft.json"):
        words = command(verb, **{read: tmp_path / "f.json", written: tmp_path / name})
        assert f"{name} is what is read" in refused(capfd, tmp_path, *words)


BESIDE = sorted({(verb, w) for verb, _, w in PAIRS if w != "out" and "out" in dir_of(verb)})


@pytest.mark.parametrize(("verb", "written"), BESIDE)
def test_two_outputs_of_one_command_are_never_one_file(verb, written, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = command(verb, **{written: "o.json", "out": tmp_path / "." / "o.json"})
    assert "are one file, and both are to be written" in refused(capfd, tmp_path, *words)


def test_arrays_of_a_profile_are_what_is_read_too(tmp_path, capfd):
    make_profile().write(tmp_path / "p.json")
    (arrays,) = tmp_path.glob("*.npz")
    for words in (["plan", "--avg-bits", "3"], ["sweep"]):
        said = refused(capfd, tmp_path, *words, tmp_path / "p.json", "-o", arrays, "--force")
        assert f"{arrays.name} is what is read" in said


def test_external_data_and_preprocessing_of_a_model_are_what_is_read_too(tmp_path, capfd):
    transformer(tmp_path / "whole.onnx")
    model = onnx.load(tmp_path / "whole.onnx")
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.onnx", size_threshold=0)
    (tmp_path / "whole.onnx").unlink()
    (tmp_path / "preprocessor_config.json").write_text("{}")
    words = ["quantize", tmp_path / "m.onnx", "--data", tmp_path, "--avg-bits", "3", "--force"]
    assert "w.onnx is what is read" in refused(capfd, tmp_path, *words, "-o", tmp_path / "w.onnx")
    more = ["-o", tmp_path / "q.onnx", "--plan-out", tmp_path / "preprocessor_config.json"]
    assert "preprocessor_config.json is what is read" in refused(capfd, tmp_path, *words, *more)


def test_what_lies_in_a_folder_of_data_is_kept(tmp_path, capfd):
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib/cat.json").write_text("dear")
    words = ["profile", "m.onnx", "--data", tmp_path / "calib", "-o", tmp_path / "calib/cat.json", "--force"]
    assert f"lies in {tmp_path / 'calib'}, which is read" in refused(capfd, tmp_path, *words)


def test_a_folder_that_holds_an_input_is_not_replaced(tmp_path, capfd):
    (tmp_path / "vit").mkdir()
    for name in ("config.json", "plan.json"):
        (tmp_path / "vit" / name).write_text("{}")
    words = ["apply", "m.onnx", tmp_path / "vit/plan.json", "-o", tmp_path / "vit", "--force"]
    assert f"holds {tmp_path / 'vit/plan.json'}, which is read" in refused(capfd, tmp_path, *words)


def test_profiles_never_take_the_name_of_their_own_arrays(tmp_path, capfd):
    words = ["profile", transformer(tmp_path / "m.onnx"), "--no-data", "-o", tmp_path / "p.npz"]
    assert "p.npz: name a .json file" in refused(capfd, tmp_path, *words)
    with pytest.raises(OutputError, match=r"name a \.json file"):
        make_profile().write(tmp_path / "p.npz", force=True)


@pytest.mark.parametrize("force", [True, False])
def test_devices_pipes_and_sockets_are_never_replaced(force, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "socket", tmp_path / "link", Path("/dev/null")):
        with pytest.raises(OutputExistsError, match="a device, pipe or socket, and is kept"):
            refuse_clashes([Output(path=path)], force=force)


def test_a_link_that_leads_nowhere_is_somebodys_too(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputExistsError, match="pass --force"):
        refuse_clashes([Output(path=tmp_path / "link")], force=False)


def test_names_that_cannot_be_are_refused_before_any_work(tmp_path):
    with pytest.raises(OutputError, match="the name has 300 bytes, more than"):
        refuse_clashes([Output(path=tmp_path / ("x" * 300))], force=False)
    refuse_clashes([Output(path=tmp_path / ("x" * 255))], force=False)
    with pytest.raises(OutputError, match="the name has 250 bytes, more than"):
        refuse_clashes([Output.profile(tmp_path / ("x" * 245 + ".json"))], force=False)
    make_profile().write(tmp_path / ("x" * 238 + ".json"))
    assert Profile.read(tmp_path / ("x" * 238 + ".json")).samples == 6


def test_an_old_profile_stays_readable_and_its_arrays_go_with_it(tmp_path):
    make_profile(0).write(tmp_path / "p.json")
    (arrays,) = tmp_path.glob("*.npz")
    arrays.rename(tmp_path / "p.npz")
    data = json.loads((tmp_path / "p.json").read_text())
    data["arrays"]["file"] = "p.npz"
    (tmp_path / "p.json").write_text(json.dumps(data))
    assert Profile.read(tmp_path / "p.json").samples == 6
    make_profile(1).write(tmp_path / "p.json", force=True)
    (left,) = tmp_path.glob("*.npz")
    assert left.name != "p.npz"
