"""What a model is for: the metrics its users judge it by, and what is known to be right of some samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lampq.adapters.data import Preprocess
from lampq.core.measuring.model import Model
from lampq.core.values.batch import Batch, BatchLike, join
from lampq.core.values.choices import refuse_unknown
from lampq.core.values.errors import RecordError
from lampq.core.values.head import IGNORE, VALUES, HeadChoice
from lampq.core.values.input_spec import FLOATING
from lampq.metrics import Case, Decoder, Metric, metric
from lampq.metrics.decoders import decoder_of
from lampq.metrics.metric import REFERENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """A metric of a model.

    Attributes:
        name: The metric.
        value: Of the model.
        float_value: Of the float model, or None without one.
        against: What it was measured against: `labels`, `truth`, `reference` or `inputs`.
        higher_is_better: Whether a good model has a large value.
        notes: Remarks a reader should see.
    """

    name: str
    value: float
    float_value: float | None
    against: str
    higher_is_better: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**dataclasses.asdict(self), "notes": list(self.notes)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """Metrics, and what they are measured against. S samples.

    Attributes:
        metrics: Metrics, names of metrics, `module:function`, or functions from a `lampq.metrics.Case` to a number.
        labels: Class of each sample, shape (S,), or None.
        truth: What else is right: content of a COCO annotation file, masks, texts or tokens, one for each sample;
            None where the float model's outputs are taken for right.
        names: File of each sample, or empty.
        decoder: From outputs to boxes: a name, a function or `module:function`; None: told by the outputs.
        preprocess: What was done to the images, or None.
        inputs: For `quantize`: samples that metrics are measured on, or None: those it calibrates with.
    """

    metrics: tuple[Metric, ...] = ()
    labels: np.ndarray | None = None
    truth: Any = None
    names: tuple[str, ...] = ()
    decoder: Decoder | None = None
    preprocess: Preprocess | None = None
    inputs: BatchLike | None = None

    def __post_init__(self) -> None:
        if isinstance(self.metrics, str) or callable(self.metrics):
            raise RecordError("metrics: give a list of them, such as ['top1']")
        object.__setattr__(self, "metrics", tuple(metric(choice) for choice in self.metrics))
        object.__setattr__(self, "names", tuple(self.names))
        if self.decoder is not None:
            object.__setattr__(self, "decoder", decoder_of(self.decoder))

    @classmethod
    def names_of(cls) -> tuple[str, ...]:
        """The names that `of` knows."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def of(cls, task: Task | None = None, **choices: Any) -> Task:
        """A task with further choices by name.

        Raises:
            RecordError: A name is unknown, or a choice cannot be.
        """
        refuse_unknown(choices, cls.names_of(), "a task")
        return dataclasses.replace(task or cls(), **choices)

    def check(self, samples: int) -> None:
        """Stop where labels or names are not one for each sample.

        Raises:
            RecordError: They are not.
        """
        for what, values in (("labels", self.labels), ("names", self.names or None)):
            if values is not None and len(values) != samples:
                raise RecordError(f"{len(values)} {what} for {samples} samples; give one for each")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a model makes of some inputs.

    Attributes:
        model: The model.
        inputs: S samples, under the names of its inputs.
        outputs: Its judged outputs of them.
    """

    model: Model
    inputs: Batch
    outputs: Batch

    def final(self, batch_size: int) -> Answers:
        """The outputs of its file, where inner tensors are judged in place of them."""
        model = _finally_judged(self.model)
        if model is self.model:
            return self
        outputs = join([model.run(piece) for piece in pieces_of(self.inputs, batch_size)])
        return Answers(model=model, inputs=self.inputs, outputs=outputs)


def pieces_of(data: Batch, size: int) -> list[Batch]:
    """Some samples at a time."""
    starts = range(0, data.samples, size)
    return [data.take(range(start, min(start + size, data.samples))) for start in starts]


def measured(
    task: Task, model: Answers, reference: Answers | None, batch_size: int = 64
) -> tuple[MetricValue, ...]:
    """The metrics of a task.

    Args:
        task: The metrics, and what they are measured against.
        model: Of the model.
        reference: Of the float model, or None.
        batch_size: Samples per run, where outputs are needed that are not there.

    Raises:
        RecordError: A metric cannot be measured, or is no finite number.
    """
    values = []
    for asked in task.metrics:
        mine, theirs = model, reference
        if asked.final:
            mine = model.final(batch_size)
            theirs = None if reference is None else reference.final(batch_size)
        values.append(_value(asked, _case(task, mine, theirs)))
    return tuple(values)


def _case(task: Task, model: Answers, reference: Answers | None) -> Case:
    """What a metric is given."""
    heads = tuple(head for head in model.model.heads if head.name in model.outputs.names)
    judged = [head.name for head in heads]
    return Case(
        outputs=model.outputs.only(judged),
        reference=None if reference is None else reference.outputs.only(judged),
        heads=heads,
        inputs=model.inputs,
        labels=task.labels,
        truth=task.truth,
        names=task.names,
        decoder=task.decoder,
        preprocess=task.preprocess,
    )


def _value(asked: Metric, case: Case) -> MetricValue:
    """A metric of a model, and of the float model where there is one."""
    measured = asked(case)
    own = None
    if case.reference is not None:
        own = asked(dataclasses.replace(case, outputs=case.reference)).value
    return MetricValue(
        name=asked.name,
        value=measured.value,
        float_value=own,
        against=asked.source(case),
        higher_is_better=asked.higher_is_better,
        notes=(*measured.notes, *_against_itself(asked, case)),
    )


def _against_itself(asked: Metric, case: Case) -> tuple[str, ...]:
    if asked.source(case) != REFERENCE:
        return ()
    return (f"{asked.name} is measured against the float model's own outputs",)


def _finally_judged(model: Model) -> Model:
    """The model judged by the outputs of its file, where inner tensors were to be judged in place of some.

    Outputs that are no floats stay out of it.
    """
    stand_ins = {spec.name: spec.stands_for for spec in model.output_specs if spec.stands_for}
    if not stand_ins:
        return model
    replaced = {name for names in stand_ins.values() for name in names}
    specs = {spec.name: spec for spec in model.output_specs}
    choices = [
        HeadChoice(name=name, role=VALUES)
        for name in specs
        if name in replaced and specs[name].dtype in FLOATING
    ]
    if not choices:
        return model
    return model.with_heads([*choices, *(HeadChoice(name=name, role=IGNORE) for name in stand_ins)])


def split_choices(choices: Mapping[str, Any]) -> tuple[Task, dict[str, Any]]:
    """The task that some choices describe, and the other choices.

    Raises:
        RecordError: One cannot be.
    """
    own = {name: choices[name] for name in Task.names_of() if name in choices}
    task = Task.of(choices.get("task"), **own)
    return task, {name: value for name, value in choices.items() if name not in own and name != "task"}
