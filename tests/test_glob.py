"""Globs match as the regular expressions that they stand for, in bounded time."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampq.core.values.errors import PlanError
from lampq.core.values.glob import Glob
from lampq.core.values.layer import Layer
from lampq.core.values.patterns import select, tie_groups


def expression(pattern):
    """The glob as a regular expression, straight from its definition."""
    pieces, depth = [], 0
    for char in pattern:
        if char == "{":
            pieces.append("(?:")
        elif char == "}" and depth:
            pieces.append(")")
        elif char == "," and depth:
            pieces.append("|")
        elif char in "*?":
            form = ".*?" if char == "*" else "."
            pieces.append(f"(?:{form})" if depth else f"({form})")
        else:
            pieces.append(re.escape(char))
        depth += (char == "{") - (char == "}" and depth > 0)
    return re.compile("".join(pieces))


GLOBS = st.recursive(
    st.text("ab*?.,", max_size=5),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(",".join).map("{{{}}}".format)
        | st.lists(inner, max_size=3).map("".join)
    ),
    max_leaves=6,
)


@given(GLOBS, st.text("ab.,", max_size=8))
def test_globs_match_and_capture_as_regular_expressions_do(pattern, name):
    expected = expression(pattern).fullmatch(name)
    assert Glob(pattern).match(name) == (None if expected is None else expected.groups())


@pytest.mark.parametrize(
    "pattern", ["*a" * 40 + "b", "{*a,*a}" * 30 + "b", "{a,aa}" * 60 + "b", "?*" * 50 + "b"]
)
def test_patterns_that_backtrack_without_end_are_answered(pattern):
    layers = [
        Layer.from_weight("a" * 90 + str(index), np.ones((2, 2), np.float32), kind="linear", channel_axis=0)
        for index in range(3)
    ]
    with pytest.raises(PlanError, match=r"matches no layer|more than 500,000 steps"):
        select(layers, pattern)
    with pytest.raises(PlanError, match=r"joins no two|more than 500,000 steps"):
        tie_groups(layers, pattern)


def test_a_pattern_of_endless_length_is_refused():
    with pytest.raises(PlanError, match="longer than 1000 characters"):
        Glob("*" * 10**6)
