"""A head as a user wants it; the file still says along which axis, and whether it is a probability already."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lampq.core.readouts.evidence import Evidence
from lampq.core.readouts.vocabulary import NORMALIZING, SIGMOID, SOFTMAX
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.head import CLASSES, DIRECTION, IGNORE, PROBABILITIES, Head, HeadChoice
from lampq.core.values.input_spec import FLOATING, InputSpec
from lampq.core.values.output_spec import OutputSpec


def chosen_head(
    choice: HeadChoice, spec: OutputSpec, inputs: Sequence[InputSpec], inferred: Head | None = None
) -> Head:
    """The head of an output whose role a user names.

    Args:
        choice: What the user says.
        spec: The output or inner tensor.
        inputs: Inputs of the model.
        inferred: Its head so far; where the role agrees, only weight and reason change.

    Raises:
        RecordError: The output cannot have that role.
    """
    if inferred is not None and inferred.role == choice.role:
        return dataclasses.replace(inferred, weight=choice.weight, reason="")
    if choice.role == IGNORE:
        return Head(name=spec.name, role=IGNORE)
    if spec.dtype not in FLOATING:
        raise RecordError(f"output {spec.name} holds {spec.dtype}; only floating point can be judged")
    evidence = Evidence(spec=spec, outputs=(spec,), inputs=inputs, task="", model=frozenset())
    axis = _axis(choice.role, evidence)
    if choice.role == CLASSES and _length(spec, axis) == 1:
        raise RecordError(
            f"output {spec} has one entry on axis {axis}: no classes; one logit is `probabilities`"
        )
    last = axis in (-1, len(spec.shape or ()) - 1)
    return Head(
        name=spec.name,
        role=choice.role,
        axis=-1 if last else axis,
        activated=_activated(choice.role, spec),
        mask=evidence.mask() if last else None,
        weight=choice.weight,
    )


def chosen_heads(
    choices: Sequence[HeadChoice],
    heads: Sequence[Head],
    specs: Sequence[OutputSpec],
    inputs: Sequence[InputSpec],
    *,
    whose: str,
) -> tuple[Head, ...]:
    """The heads of a model of which a user names some; for formats whose inner tensors cannot be judged.

    Args:
        choices: What the user says, the last word on an output being the one that counts.
        heads: The heads so far.
        specs: The outputs.
        inputs: Inputs of the model.
        whose: The model, for messages.

    Raises:
        AdapterError: No output is so called; lists them.
        RecordError: An output cannot have its role.
    """
    described = {spec.name: spec for spec in specs}
    by_name = {head.name: head for head in heads}
    for choice in choices:
        if choice.name not in described:
            raise AdapterError(f"{whose} has no output {choice.name!r}; it has {', '.join(described)}")
        by_name[choice.name] = chosen_head(choice, described[choice.name], inputs, by_name.get(choice.name))
    return tuple(by_name.values())


def _axis(role: str, evidence: Evidence) -> int:
    runs = {CLASSES: SOFTMAX, DIRECTION: NORMALIZING}
    if evidence.spec.producer in runs.get(role, ()) and evidence.run_axis:
        return evidence.run_axis
    return evidence.channel_axis if (evidence.axes or 0) > 2 else evidence.last_axis


def _activated(role: str, spec: OutputSpec) -> bool:
    if role == CLASSES:
        return spec.producer == "Softmax"
    return role == PROBABILITIES and spec.producer in SIGMOID


def _length(spec: OutputSpec, axis: int) -> int | None:
    shape = spec.shape
    if shape is None:
        return None
    return 1 if len(shape) < 2 else shape[axis]
