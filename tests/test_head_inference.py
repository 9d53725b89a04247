"""What outputs mean, from their descriptions alone."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from output_cases import CASES, IMAGE, TEXT, out

from lampq.core.readouts.choice import chosen_head
from lampq.core.readouts.evidence import Evidence, words
from lampq.core.readouts.inference import RULES, infer_heads
from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES, ROLES, HeadChoice
from lampq.core.values.output_spec import OutputSpec


def notation(head):
    """Role, axis where it is not the last, `*` where activated, and the mask."""
    axis = f":{head.axis}" if head.axis != -1 or head.role in (CLASSES, "direction") else ""
    return f"{head.role}{axis}{'*' if head.activated else ''}{f'@{head.mask}' if head.mask else ''}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_description_gives_the_heads_a_person_would(case):
    heads = infer_heads(case.outputs, case.inputs, task=case.task, model_name=case.file)
    assert {head.name: notation(head) for head in heads} == case.expected
    assert all(head.reason for head in heads)


def test_only_the_last_part_of_a_path_is_a_models_name():
    outputs, folder = [out("y", None, 10, by="Gemm")], "/home/pose/landmarks"
    (head,) = infer_heads(outputs, (), model_name=f"{folder}/model.onnx")
    assert head.role == "classes"


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("pred_boxes", {"pred", "boxes", "predboxes"}),
        ("lastHiddenState", {"last", "hidden", "state", "hiddenstate"}),
        ("present.0.key", {"present", "0", "key"}),
        ("StatefulPartitionedCall:1", {"stateful", "partitioned", "call", "1"}),
        ("", set()),
    ],
)
def test_names_are_read_as_words(name, some):
    assert some <= words(name)


def test_every_rule_decides_some_case():
    """A rule that no description needs is one too many."""
    deciding = set()
    for case in CASES:
        for spec in case.outputs:
            evidence = Evidence(
                spec=spec,
                outputs=case.outputs,
                inputs=case.inputs,
                task="".join(filter(str.isalpha, (case.task or "").lower())),
                model=words(case.file),
            )
            deciding.add(next((rule for rule in RULES if rule(evidence)), None))
    assert deciding == {*RULES, None}


SPECS = st.builds(
    OutputSpec,
    name=st.sampled_from(
        ["y", "logits", "pred_boxes", "masks", "present.0", "embeds", "hidden_state", "", "\n"]
    ),
    shape=st.none() | st.lists(st.sampled_from([None, 0, 1, 2, 10, 999]), max_size=5).map(tuple),
    dtype=st.sampled_from(["float32", "float16", "int64", "string", "sequence"]),
    producer=st.sampled_from(
        ["", "Softmax", "Sigmoid", "LpNormalization", "Gemm", "Concat", "TopK", "Custom"]
    ),
    axis=st.none() | st.integers(-6, 6),
    stands_for=st.sampled_from([(), ("y",)]),
)


@given(
    specs=st.lists(SPECS, min_size=1, max_size=3),
    inputs=st.sampled_from([(), (IMAGE,), TEXT]),
    task=st.none()
    | st.sampled_from(["image-segmentation", "image-classification", "T5ForCausalLM", "question"]),
    file=st.sampled_from(["", "crnn", "yolo-seg.onnx", "pose"]),
    role=st.sampled_from(ROLES),
)
@settings(max_examples=300, deadline=None)
def test_no_description_stops_the_reading_of_a_model(specs, inputs, task, file, role):
    heads = infer_heads(specs, inputs, task=task, model_name=file)
    assert [head.name for head in heads] == [spec.name for spec in specs]
    for spec, head in zip(specs, heads, strict=True):
        assert head.reason and (spec.shape is None or not head.judged or head.axis < max(len(spec.shape), 1))
        with contextlib.suppress(RecordError):
            chosen_head(HeadChoice(name=spec.name, role=role), spec, inputs, head)
