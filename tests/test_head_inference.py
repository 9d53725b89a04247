"""What outputs mean, from their descriptions alone."""

import pytest
from output_cases import CASES, out

from lampq.core.readouts.evidence import Evidence, words
from lampq.core.readouts.inference import RULES, infer_heads
from lampq.core.values.head import CLASSES


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
