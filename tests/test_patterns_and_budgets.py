from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampq.core.values.amounts import average_bits_limit, parse_size
from lampq.core.values.errors import BudgetError, PlanError
from lampq.core.values.layer import Layer
from lampq.core.values.patterns import parse_rule, select, tie_groups
from lampq.core.values.width import Width

NAMES = [f"blocks.{i}.attn.{part}" for i in range(2) for part in "qkv"] + ["blocks.1.mlp.fc1", "head"]
KINDS = ["q", "k", "v"] * 2 + ["fc1", "head"]
LAYERS = [
    Layer.from_weight(name, np.ones((2, 2), dtype=np.float32), kind=kind, channel_axis=0)
    for name, kind in zip(NAMES, KINDS, strict=True)
]


@pytest.mark.parametrize(
    ("pattern", "picked"),
    [("head", [7]), ("fc1", [6]), ("blocks.*.attn.q", [0, 3]), ("*", list(range(8))), ("blocks.1.*", [3, 4, 5, 6]),
     ("blocks.?.attn.{q,v}", [0, 2, 3, 5])],
)  # fmt: skip
def test_patterns_pick_kinds_and_names(pattern, picked):
    assert select(LAYERS, pattern) == picked


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("blocks.*.attn.{q,k,v}", [(0, 1, 2), (3, 4, 5)]),
        ("blocks.0.attn.{q,k}", [(0, 1)]),
        ("blocks.{0,1}.attn.q", [(0, 3)]),
        ("k", [(1, 4)]),
    ],
)
def test_ties_join_what_agrees_under_the_stars(pattern, groups):
    assert tie_groups(LAYERS, pattern) == groups


@pytest.mark.parametrize("pattern", ["nothing", "blocks.{0"])
def test_patterns_that_match_nothing_are_refused(pattern):
    with pytest.raises(PlanError, match="pattern"):
        select(LAYERS, pattern)


def test_ties_that_join_nothing_are_refused():
    with pytest.raises(PlanError, match="joins no two"):
        tie_groups(LAYERS, "blocks.*.mlp.{fc1,fc2}")


def test_pins():
    assert parse_rule("blocks.*.attn.{q,k}=8") == ("blocks.*.attn.{q,k}", Width(weight_bits=8))
    assert parse_rule("head=w8a4") == ("head", Width(weight_bits=8, input_bits=4))
    assert parse_rule("head=a32") == ("head", Width(input_bits=32))
    for text in ("head", "=8", "head=", "head=9", "head=x", "head=4.5", "head=w", "head=a9"):
        with pytest.raises(PlanError, match="PATTERN=BITS"):
            parse_rule(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("12MB", 12_000_000), ("1 KiB", 1024), ("7", 7), ("0.1GB", 100_000_000), ("1.5 mib", 1_572_864)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-3MB", "12 parsecs", "1e400", "nan", "12 MB MB"])
def test_sizes_in_nonsense_units_are_refused(text):
    with pytest.raises(BudgetError, match="size"):
        parse_size(text)


@given(st.decimals(min_value="0.001", max_value="16", places=3), st.integers(1, 10**10))
def test_the_limit_is_the_largest_integer_that_keeps_the_average(average, weights):
    limit = average_bits_limit(str(average), weights)
    assert Fraction(limit, weights) <= Fraction(str(average)) < Fraction(limit + 1, weights)


@pytest.mark.parametrize("bits", [0, -1, "x", float("nan"), float("inf")])
def test_impossible_averages_are_refused(bits):
    with pytest.raises(BudgetError):
        average_bits_limit(bits, 10)
