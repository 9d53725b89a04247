"""Tables and lists for people at several widths of the terminal."""

from __future__ import annotations

import re

import pytest

from lampq.console import tables

COLUMNS = ("name", "kind", "weights", "predicted KL", *(f"KL at {bits}" for bits in range(2, 9)), "why")
ROWS = [
    (
        f"transformer.layers.{index}.self_attn.in_proj",
        "patch_embed",
        49_152 + index,
        1.2345e-06,
        *(0.0001234 / 4**bits for bits in range(7)),
        "5 bits adds 3.03e-03 for 768 bytes less; 7 bits saves 1.36e-03 for 768 bytes more, over a limit",
    )
    for index in range(3)
]


@pytest.mark.parametrize("width", [80, 100, 160, 400])
def test_no_line_is_longer_than_the_terminal_and_no_number_breaks(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    tables.table("layers", COLUMNS, ROWS)
    shown = capsys.readouterr().err
    assert max(map(len, shown.splitlines())) <= width
    words = set(re.split(r"[\s│]+", shown))
    for row in ROWS:
        for value in row[2:-1]:
            assert tables.text(value) in words
    assert words >= {word for column in COLUMNS for word in column.split()}


def test_columns_that_do_not_fit_follow_below_with_the_names_repeated(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    tables.table("layers", COLUMNS, [("head", *ROWS[0][1:])])
    lines = capsys.readouterr().err.splitlines()
    parts = sum(line.startswith("┏") for line in lines)
    assert parts > 1
    assert sum("│ head " in line for line in lines) == parts


def test_all_columns_stay_together_where_they_fit(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "400")
    tables.table("layers", COLUMNS, ROWS)
    assert sum(line.startswith("┏") for line in capsys.readouterr().err.splitlines()) == 1


def test_a_log_has_the_width_that_the_environment_says_or_160(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert tables.console().width == 160
    monkeypatch.setenv("COLUMNS", "72")
    assert tables.console().width == 72


def test_facts_shorten_digests_and_leave_out_what_is_empty(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    tables.facts(
        "file", {"made from": {"digest": "ab" * 32, "note": "", "seed": 0}, "notes": [], "more": None}
    )
    lines = capsys.readouterr().err.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["made", "from:", "digest", "abababababab..."],
        ["made", "from:", "seed", "0"],
    ]


def test_titles_of_short_lists_stay_on_one_line(capsys):
    tables.facts("written and verified", {"a": 1})
    assert capsys.readouterr().err.splitlines()[0].strip() == "written and verified"


@pytest.mark.parametrize("width", [1, 20, 40, 80])
def test_facts_show_every_value_however_narrow_the_terminal(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    values = {"damage to the reference (nats)": 0.0311, "bytes": {"weights": 113_872, "others": [1, 2]}}
    tables.facts("model", values)
    shown = "".join(capsys.readouterr().err.split())
    assert all(text in shown for text in ("(nats)", "0.0311", "bytes:weights", "113,872", "1;2"))
