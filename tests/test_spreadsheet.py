"""Names out of files are no formulas in the tables that lampq writes, and come back as they were."""

import csv
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import make_profile

import lampq
from lampq.core.values.spreadsheet import quoted, unquoted
from lampq.verbs.convert import convert, read_foreign
from lampq.verbs.sweep import sweep, write_csv

FORMULAS = ("=cmd|'/c calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "\uff1d1", "'=1", "''+1")


def named(names):
    """A profile whose layers are so called."""
    profile = make_profile(kinds=("fc1",) * len(names))
    layers = [
        dataclasses.replace(layer, name=name) for layer, name in zip(profile.layers, names, strict=True)
    ]
    return dataclasses.replace(profile, layers=tuple(layers))


@pytest.mark.parametrize("name", FORMULAS)
def test_what_begins_as_a_formula_is_quoted(name):
    assert quoted(name).startswith("'")
    assert unquoted(quoted(name)) == name


@given(st.text("'=+-@ \t\nab\uff1d", max_size=6))
def test_every_text_comes_back(text):
    assert unquoted(quoted(text)) == text
    assert not quoted(text).lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_no_cell_or_heading_of_a_sweep_is_a_formula(tmp_path):
    profile = named(FORMULAS)
    write_csv(profile, sweep(profile), tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert not [cell for cell in cells if cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\uff1d"))]


def test_a_table_of_widths_holds_no_formula_and_comes_back(tmp_path):
    profile = named([name for name in FORMULAS if name.strip() == name])
    plan = lampq.plan(profile, average_bits=4)
    text, _ = convert(plan, "csv", profile=profile)
    assert not [
        row for row in csv.reader(text.splitlines()) if row[0].startswith(("=", "+", "-", "@", "\uff1d"))
    ]
    (tmp_path / "t.csv").write_text(text)
    again = read_foreign(tmp_path / "t.csv", "csv", profile)
    assert [(p.name, p.weight_bits) for p in again.layers] == [(p.name, p.weight_bits) for p in plan.layers]
