"""Outputs that a description takes for logits, and that hold numbers."""

import numpy as np
import pytest

from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.head import Head

SCORES = [[3.1, 3.9, 2.8], [2.2, 2.9, 2.1], [3.6, 4.1, 3.3], [1.9, 2.4, 1.8]]
AGES = [[31.0], [42.5], [29.0], [38.0]]
LOGITS = [[2.1, -1.0, -0.9], [-0.3, 1.4, -1.2], [0.2, -1.5, 1.1], [1.0, 0.4, -1.6]]


def notes(values, role="classes", **said):
    said = {"reason": "one row of logits per sample", **said}
    batch = Batch.of(np.array(values, np.float32), name="y")
    return Readout.fit((Head(name="y", role=role, **said),), batch, None).notes


@pytest.mark.parametrize(
    ("role", "values", "ends"),
    [
        ("classes", SCORES, "1.8 and 4.1"),
        ("classes", -np.array(SCORES), "-4.1 and -1.8"),
        ("probabilities", AGES, "29 and 42.5"),
    ],
)
def test_numbers_that_pass_for_logits_are_told_with_the_way_to_say_so(role, values, ends):
    (note,) = notes(values, role)
    assert f"judged as {role} (one row of logits per sample)" in note
    assert f"between {ends}" in note
    assert note.endswith("say --output y=values")


@pytest.mark.parametrize(
    "values",
    [
        LOGITS,
        [[0.1, -0.1], [5.0, -5.0], [2.0, -2.0], [-1.0, 1.0]],
        np.array(LOGITS) + 2,  # All above zero, and yet what differs is what counts.
        np.log([[0.5, 0.5], [0.48, 0.52], [0.51, 0.49], [0.45, 0.55]]),
        np.full((4, 50), 3.0) + np.arange(50) / 50,  # A language model's logits have an offset.
    ],
)
def test_logits_are_not_doubted(values):
    assert notes(values) == ()


def test_a_yes_or_no_that_is_always_yes_is_not_doubted():
    assert notes([[0.8], [5.0], [2.5], [7.0]], "probabilities") == ()


def test_one_sample_tells_nothing_of_a_lone_number():
    assert notes([[31.0]], "probabilities") == ()


def test_what_a_user_said_is_not_doubted():
    assert notes(SCORES, reason="") == ()


def test_what_a_graph_shows_is_not_doubted():
    assert notes(SCORES, activated=True, reason="behind Softmax") == ()
