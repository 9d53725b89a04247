"""Steps of a search with the model at hand: what they are in a file, and that old files are read."""

import json

import pytest

from lampq.core.values.errors import PlanError
from lampq.core.values.history import Round, Swap, history_from_json, step_to_json

STEPS = (
    Swap(raised=1, lowered=2, kl=0.2, gain=0.1, degradation=-0.05, kept=True),
    Round(number=0, measured=0.1, tried=3, accepted=True),
    Round(number=1, measured=0.09, before=0.1, predicted=-0.001, moved=2, tried=8, seconds=0.5),
)


def test_steps_survive_a_file_with_their_kinds():
    entries = json.loads(json.dumps([step_to_json(step) for step in STEPS], allow_nan=False))
    assert [entry["kind"] for entry in entries] == ["swap", "round", "round"]
    assert history_from_json(entries) == STEPS


def test_entries_of_before_the_tag_are_read():
    entries = [step_to_json(step) for step in STEPS]
    for entry in entries:
        del entry["kind"]
    assert history_from_json(entries) == STEPS


def test_entries_that_nothing_can_be_told_of_are_passed_over():
    odd = [{"raised": 0, "kl": "x"}, {"measured": None}, {"anything": [1]}, {"kind": "leap"}, {"kind": 3}]
    assert history_from_json(odd) == ()


@pytest.mark.parametrize("change", [{"measured": "x"}, {"measured": -1.0}, {"number": None}, {"moved": True}])
def test_a_tagged_entry_must_be_whole(change):
    with pytest.raises(PlanError, match="history: malformed round"):
        history_from_json([step_to_json(STEPS[1]) | change])


def test_numbers_are_finite():
    with pytest.raises(PlanError, match="measured is inf"):
        Round(number=1, measured=float("inf"))
