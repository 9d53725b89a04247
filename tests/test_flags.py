"""One flag, one meaning: a walk over the parsers of all verbs, and the help that new users see first."""

import argparse
import os
import re
import subprocess
import sys

import pytest

from lampq.console.arguments import build_parser
from lampq.console.commands import GROUPS, SUMMARIES
from lampq.console.parsers import parsers

# What may differ between verbs, and why.
OF_THE_VERB = {
    "--out": {"help", "metavar"},  # The result of the verb.
    "--samples": {"default"},  # Verbs that judge take all.
    "--rounding": {"default", "choices"},  # Profiles keep no weights; plans say it themselves.
    "--to": {"choices"},  # What models and what plans can become.
    "--size": {"help", "type", "metavar", "dest"},  # Where there is no budget, it says what it is.
}


def meaning(action):
    """What a flag says to people: its help up to what the verb makes of it, and what it takes."""
    kind = getattr(action.type, "__qualname__", action.type)
    return {
        "help": re.split(r"[:(]", action.help)[0].strip(),
        "type": kind,
        "form": (type(action).__name__, action.nargs),
        "metavar": action.metavar,
        "choices": None if action.choices is None else tuple(action.choices),
        "default": action.default,
        "dest": action.dest,
    }


def differences(verbs):
    """Flag -> the sides of its meaning that differ between some verbs."""
    found = {}
    for verb in verbs.values():
        for action in verb._actions:
            for flag in action.option_strings or [action.dest]:
                if not flag.startswith("--") and action.option_strings:
                    continue
                first = found.setdefault(flag, (meaning(action), set()))
                first[1].update(side for side, value in meaning(action).items() if value != first[0][side])
    return {flag: sides for flag, (_, sides) in found.items() if sides}


def test_a_flag_means_the_same_in_every_verb():
    assert differences(parsers(build_parser())) == OF_THE_VERB


@pytest.mark.parametrize("options", [{"metavar": "BxH"}, {"type": int}, {"help": "other"}, {"default": 3}])
def test_the_walk_sees_every_kind_of_difference(options):
    verbs = {name: argparse.ArgumentParser() for name in "ab"}
    for name, more in (("a", {}), ("b", options)):
        verbs[name].add_argument("--size", **{"help": "bytes", "metavar": "12MB", **more})
    assert differences(verbs) == {"--size": set(options)}


def test_every_flag_says_what_it_does():
    silent = [
        f"{name} {action.option_strings or action.dest}"
        for name, verb in parsers(build_parser()).items()
        for action in verb._actions
        if not action.help
    ]
    assert silent == []


def shown(*words, columns="80"):
    command = [sys.executable, "-m", "lampq.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": columns})


def test_help_gives_each_verb_a_line_below_what_one_wants():
    lines = shown("--help").stdout.splitlines()
    assert all(f"  {heading}" in lines for heading in GROUPS)
    starts = [lines.index(f"    {verb:<10}  {summary}") for verb, summary in SUMMARIES.items()]
    assert starts == sorted(starts)


def test_no_words_are_answered_with_the_help_of_all_verbs():
    silent, asked = shown(), shown("--help")
    assert (silent.returncode, silent.stdout, silent.stderr) == (2, "", asked.stdout)


@pytest.mark.parametrize("columns", ["1", "20"])
@pytest.mark.parametrize("words", [["--help"], ["quantize", "--help"]])
def test_help_is_complete_at_any_width(words, columns):
    wide, narrow = shown(*words), shown(*words, columns=columns)
    assert narrow.returncode == 0 and narrow.stderr == ""
    assert "".join(narrow.stdout.split()) == "".join(wide.stdout.split())


def test_help_of_all_verbs_loads_none_of_them():
    code = (
        "import sys; from lampq.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(n for n in sys.modules if n in ('numpy', 'rich', 'lampq.verbs', 'lampq.adapters')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("profile", "m", "--data", "d", "-o", "o", "--samples", "many"), "'many': write a whole number"),
        (("plan", "p", "-o", "o", "--seed", "1.5"), "'1.5': write a whole number"),
        (("quantize", "m", "--data", "d", "-o", "o", "--rounds", "x"), "'x': write a whole number"),
        (("profile", "m", "--data", "d", "-o", "o", "--block", ""), "'': write a whole number"),
        (("plan", "p", "-o", "o", "--max-kl", "little"), "'little': write a number"),
        (("plan", "p", "-o", "o", "--gamma", "1,5"), "'1,5': write a number"),
    ],
)
def test_what_is_no_number_is_told_in_words(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(words)
    assert caught.value.code == 2
    assert f"argument {words[-2]}: {message}; see" in capsys.readouterr().err
