"""What the outputs of a model mean: inferred from its graph, and set by the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lampq.adapters.onnx.flow import Flow, trace
from lampq.adapters.onnx.opened import Opened
from lampq.adapters.onnx.outputs import Outputs, spec_of
from lampq.core.readouts.choice import chosen_head
from lampq.core.readouts.inference import infer_heads
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import IGNORE, Head, HeadChoice
from lampq.core.values.input_spec import InputSpec


def infer(described: Outputs, specs: Sequence[InputSpec], model_name: str) -> tuple[Head, ...]:
    """What the outputs of a graph mean."""
    heads = infer_heads(described.specs, specs, model_name=model_name)
    return tuple(
        Head(name=head.name, role=IGNORE, reason=described.reasons[head.name])
        if head.name in described.reasons
        else head
        for head in heads
    )


def judge(flow: Flow, heads: Sequence[Head]) -> Flow:
    """The graph with the judged heads as its outputs."""
    return trace(flow.model, [head.name for head in heads if head.judged])


def choose(opened: Opened, choices: Sequence[HeadChoice]) -> Opened:
    """The same file with some outputs judged another way.

    Args:
        opened: The file.
        choices: Roles of outputs or inner tensors by name; the other outputs keep theirs.

    Raises:
        AdapterError: No output or tensor is so called, or it cannot be judged.
        RecordError: It cannot have that role.
    """
    specs = {spec.name: spec for spec in opened.outputs}
    heads = {head.name: head for head in opened.heads}
    for choice in choices:
        try:
            if choice.name not in specs:
                (value,) = trace(opened.flow.model, [choice.name]).outputs
                specs[choice.name] = spec_of(opened.flow, value)
            spec, known = specs[choice.name], heads.get(choice.name)
            heads[choice.name] = chosen_head(choice, spec, opened.all_specs, known)
        except AdapterError as err:
            raise AdapterError(f"{opened.container.path}: {err}") from err
    ordered = tuple(heads[name] for name in specs)
    try:
        flow = judge(opened.flow, ordered)
    except AdapterError as err:
        raise AdapterError(f"{opened.container.path}: {err}") from err
    return dataclasses.replace(opened, flow=flow, outputs=tuple(specs.values()), heads=ordered)
