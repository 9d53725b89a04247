"""What outputs mean, from their descriptions alone."""

import pytest
from output_cases import CASES

from lampq.core.readouts.inference import infer_heads
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
