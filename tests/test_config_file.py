"""Flags from a TOML file: the command line wins, unknown names are one line with those that come near."""

import json
import os
import subprocess

import pytest
from records import make_profile

from lampq.cli import main
from lampq.console.arguments import parse


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "lampq.toml"
        path.write_text(text)
        return str(path)

    return write


def parsed(*words):
    return parse(words)


def test_flags_of_all_forms_come_from_the_file(config):
    path = config(
        'avg-bits = 3.5\nseed = 7\nquiet = true\njson = false\npin = ["head=8", "fc1=4"]\nmode = "kl"\n'
        '[profile]\nsamples = 8\n[plan]\nout = "-plan.json"\n'
    )
    args = parsed("plan", "p.json", "--config", path)
    assert (args.average_bits, args.seed, args.quiet, args.json) == ("3.5", 7, True, False)
    assert (args.pin, args.mode, str(args.out)) == (["head=8", "fc1=4"], "kl", "-plan.json")


def test_lists_are_commas_where_a_flag_comes_once(config):
    path = config("bits = [2, 4, 8]\nmean = [0.5, 0.5, 0.25]\ndata = 'images'\nout = 'p.json'")
    args = parsed("profile", f"--config={path}", "x.onnx")
    assert (args.bits, args.mean) == ((2, 4, 8), (0.5, 0.5, 0.25))


@pytest.mark.parametrize("form", [["--seed", "1"], ["--seed=1"], ["--see", "1"]])
def test_the_command_line_wins(config, form):
    path = config('seed = 7\npin = ["head=8"]\nout = "a.json"\navg-bits = 3')
    args = parsed("plan", "p.json", "--config", path, *form, "--pin", "fc1=4", "-ob.json")
    assert (args.seed, args.pin, str(args.out)) == (1, ["fc1=4"], "b.json")


def test_a_flag_that_excludes_one_of_the_file_wins_too(config):
    path = config('data = "images"\nout = "p.json"')
    assert parsed("profile", "x.onnx", "--config", path, "--no-data").data is None


def test_without_a_file_the_words_are_as_they_were():
    assert parsed("plan", "p.json", "-o", "x.json", "--avg-bits", "3").average_bits == "3"
    assert parsed("--version").version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("avg_bits = 3", "'avg_bits' is no flag of plan; did you mean avg-bits"),
        ("[plna]\nseed = 1", "[plna] is no verb; did you mean plan"),
        ("seed", "config "),
        ("quiet = 3", "quiet is true or false, not 3"),
        ("seed = true", "seed takes a text, a number or a list of them, not True"),
        ("seed = -1", "use a number from 0 to"),
        ("config = 'other.toml'", "'config' is no flag of plan"),
        ("help = true", "'help' is no flag of plan"),
    ],
)
def test_what_a_file_cannot_say_is_one_line(config, text, message, capfd):
    try:
        code = main(["plan", "p.json", "-o", "x.json", "--config", config(text)])
    except SystemExit as left:
        code = left.code
    err = capfd.readouterr().err.strip()
    assert code == 2 and message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_file_that_is_none_is_one_line(tmp_path, capfd):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, told in (
        (tmp_path / "nowhere.toml", "No such file"),
        (tmp_path, "folder"),
        (tmp_path / "binary", "utf-8"),
    ):
        assert main(["plan", "p.json", "-o", "x.json", "--config", str(path)]) == 2
        err = capfd.readouterr().err.strip()
        assert told in err and len(err.splitlines()) == 1


def test_a_plan_from_a_file_of_flags(config, tmp_path, capfd):
    make_profile(3).with_tables(logit_delta=None).write(tmp_path / "p.json")
    out = tmp_path / "plan.json"
    path = config(f'avg-bits = 3\nout = "{out}"\nquiet = true')
    assert main(["plan", str(tmp_path / "p.json"), "--config", path]) == 0
    assert capfd.readouterr().out.strip() == str(out)
    assert json.loads(out.read_text())["budget"]["average_bits"] == 3


def test_no_output_replaces_the_file(config, tmp_path, capfd):
    make_profile(3).write(tmp_path / "p.json")
    path = config("avg-bits = 3")
    assert main(["plan", str(tmp_path / "p.json"), "--config", path, "-o", path, "--force"]) == 2
    assert "lampq.toml" in capfd.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_verbs_and_flags(shell, capfd):
    assert main(["completion", shell]) == 0
    out, err = capfd.readouterr()
    assert "quantize" in out and "--avg-bits" in out
    assert err == ""


def test_bash_completes_verbs_flags_and_choices(tmp_path, capfd):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "lampq.sh").write_text(capfd.readouterr().out)

    def completed(*words):
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source lampq.sh; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            'function=$(complete -p lampq | sed "s/.*-F //; s/ .*//"); $function; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        run = subprocess.run(
            ["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ)
        )
        return run.stdout.split()

    assert completed("lampq", "quan") == ["quantize"]
    assert "--avg-bits" in completed("lampq", "plan", "--avg")
    assert completed("lampq", "completion", "z") == ["zsh"]
