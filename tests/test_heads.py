"""Outputs with roles: records, what users say, and heads of their choice."""

import pytest
from output_cases import IMAGE, TEXT, out

from lampq.core.readouts.choice import chosen_head
from lampq.core.readouts.inference import infer_heads
from lampq.core.values.errors import RecordError
from lampq.core.values.head import Head, HeadChoice


@pytest.mark.parametrize(
    ("text", "name", "role", "weight"),
    [
        ("boxes=values", "boxes", "values", 1.0),
        ("boxes=values:0.5", "boxes", "values", 0.5),
        ("a=b:0=classes:2", "a=b:0", "classes", 2.0),
        ("StatefulPartitionedCall:0=ignore", "StatefulPartitionedCall:0", "ignore", 1.0),
    ],
)
def test_a_choice_is_name_role_and_weight(text, name, role, weight):
    assert HeadChoice.parse(text) == HeadChoice(name=name, role=role, weight=weight)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boxes", "not of the form NAME=ROLE"),
        ("=values", "not of the form NAME=ROLE"),
        ("boxes=numbers", "role 'numbers' is none of classes, probabilities, values, direction, ignore"),
        ("boxes=values:much", "weight 'much' is no number"),
        ("boxes=values:", "weight '' is no number"),
        ("boxes=values:0", "weight 0.0 is not above 0"),
        ("boxes=values:nan", "weight nan is not above 0"),
        ("boxes=values:-1", "weight -1.0 is not above 0"),
    ],
)
def test_a_choice_of_another_form_is_refused(text, message):
    with pytest.raises(RecordError, match=message):
        HeadChoice.parse(text)


def test_a_head_survives_json():
    head = Head(name="y", role="classes", axis=1, activated=True, mask="m", weight=2.0, reason="by name")
    assert Head.from_json(head.to_json()) == head
    assert Head.from_json({**head.to_json(), "later": 1}) == head
    with pytest.raises(RecordError, match="malformed output"):
        Head.from_json({"name": "y"})


def test_samples_are_no_axis_of_a_head():
    with pytest.raises(RecordError, match="axis 0 holds the samples"):
        Head(name="y", role="classes", axis=0)


def chosen(role, spec, inputs=(IMAGE,), weight=1.0):
    (inferred,) = infer_heads([spec], inputs)
    return chosen_head(HeadChoice(name=spec.name, role=role, weight=weight), spec, inputs, inferred)


@pytest.mark.parametrize(
    ("role", "spec", "axis", "activated"),
    [
        ("values", out("y", None, 1000, by="Gemm"), -1, False),
        ("classes", out("y", None, 21, 64, 64, by="Conv"), 1, False),
        ("classes", out("y", None, 21, 64, 64, by="Softmax", axis=1), 1, True),
        ("values", out("y", None, 21, 64, 64, by="Softmax", axis=1), 1, False),
        ("probabilities", out("y", None, 10, by="Softmax", axis=1), -1, False),
        ("classes", out("y", None, 10, by="Sigmoid"), -1, False),
        ("probabilities", out("boxes", None, 4, by="Sigmoid"), -1, True),
        ("direction", out("y", None, 512, 1, 1, by="Conv"), 1, False),
        ("classes", out("y"), -1, False),
        ("ignore", out("y", None, 1000, by="Gemm"), -1, False),
    ],
)
def test_the_file_says_what_a_user_leaves_open(role, spec, axis, activated):
    head = chosen(role, spec, weight=2.0)
    assert (head.role, head.axis, head.activated, head.reason) == (role, axis, activated, "")
    assert head.weight == (1.0 if role == "ignore" else 2.0)


def test_a_role_that_agrees_keeps_what_was_inferred():
    spec = out("last_hidden_state", None, None, 768)
    assert chosen("values", spec, TEXT, weight=3.0) == Head(
        name=spec.name, role="values", mask="attention_mask", weight=3.0
    )
    assert chosen("classes", spec, TEXT).mask == "attention_mask"


@pytest.mark.parametrize(
    ("role", "spec", "message"),
    [
        ("classes", out("y", None, 1, by="Gemm"), "one entry on axis -1: no classes"),
        ("classes", out("y", None), "one entry on axis -1: no classes"),
        ("values", out("y", None, 3, dtype="int64"), "output y holds int64"),
    ],
)
def test_a_role_that_cannot_be_is_refused(role, spec, message):
    with pytest.raises(RecordError, match=message):
        chosen(role, spec)
