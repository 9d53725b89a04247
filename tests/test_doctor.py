"""`lampq doctor`: what is installed works, what is missing or broken is told with its remedy."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from lampq.cli import main
from lampq.console.config import parsed
from lampq.verbs import doctor as verb
from lampq.verbs.doctor import BROKEN, MISSING, PARTS, WORKS, Part, doctor, examine


def test_everything_works_where_everything_is_installed(capfd):
    assert main(["doctor", "--json"]) == 0
    out, err = capfd.readouterr()
    findings = json.loads(out)
    assert {finding["state"] for finding in findings} == {WORKS}, err
    assert "what for" in err


def test_every_extra_is_examined_by_its_packages():
    project = parsed((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name != "all"}
    parts = {part.name: {package.lower() for package in part.modules.values()} for part in PARTS}
    for name, needs in extras.items():
        assert parts[name] == {re.split("[>=<;]", need)[0].lower() for need in needs}, name


def part(**changes):
    usual = Part(
        name="plot", purpose="", modules={"json": "numpy"}, install="'lampq[plot]'", work=lambda: None
    )
    return dataclasses.replace(usual, **changes)


def test_what_is_missing_is_told_with_the_command_that_brings_it():
    found = examine(part(modules={"not_there": "not-there"}))
    assert (found.state, found.remedy, found.versions) == (MISSING, "pip install 'lampq[plot]'", "-")


def test_what_is_installed_but_fails_at_work_is_broken_whatever_it_raises():
    def work():
        raise RuntimeError("useless") from OSError("libthing.so is missing")

    found = examine(part(work=work))
    assert found.state == BROKEN and found.versions.startswith("numpy ")
    assert found.remedy.startswith("libthing.so is missing; pip install --force-reinstall")
    assert examine(part(modules={"no_such_module": "numpy"})).state == BROKEN


@pytest.mark.parametrize(("state", "code"), [(BROKEN, 2), (MISSING, 0)])
def test_only_what_is_broken_fails_the_command(state, code, monkeypatch, capfd):
    parts = (part(work=lambda: 1 / 0),) if state == BROKEN else (part(modules={"x": "not-there"}),)
    monkeypatch.setattr(verb, "PARTS", parts)
    assert doctor()[0].state == state
    assert main(["doctor", "--quiet"]) == code
    err = capfd.readouterr().err.strip()
    assert err.startswith("lampq doctor: installed and broken: plot") if code else err == ""
    assert len(err.splitlines()) <= 1
