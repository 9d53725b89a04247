"""What each output of a model means, from its description: rules in order, each with the reason it gives.

The first rule that answers decides. Facts of the graph (types, the operator an output comes from) go before names,
names before shapes. Whatever nothing speaks for is `values`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from lampq.core.readouts.evidence import Evidence, words
from lampq.core.readouts.vocabulary import (
    CACHE,
    CLASS,
    COMPARISON,
    DIRECT,
    DISCONTINUOUS,
    EMBEDDER,
    EMBEDDING,
    FEATURE,
    INNER,
    LINEAR,
    LOGITS,
    NORMALIZING,
    NUMBER,
    NUMBER_MODEL,
    PRODUCT,
    RECOGNIZER,
    SCALED_SIGMOID,
    SEGMENTER,
    SIGMOID,
    SIZES,
    SOFTMAX,
    SPAN,
    STATE,
    TOKEN_TASKS,
    YES_NO,
)
from lampq.core.values.head import CLASSES, DIRECTION, IGNORE, PROBABILITIES, VALUES, Head
from lampq.core.values.input_spec import FLOATING, InputSpec
from lampq.core.values.output_spec import OutputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule says.

    Attributes:
        role: One of `core.values.head.ROLES`.
        reason: Why, one phrase.
        axis: Axis of classes, channels or coordinates; None for the likely one.
        activated: Behind a softmax or sigmoid.
        doubtful: Whether an ignored output may be judged after all where nothing else is.
    """

    role: str
    reason: str
    axis: int | None = None
    activated: bool = False
    doubtful: bool = False


Rule = Callable[[Evidence], "Verdict | None"]


def infer_heads(
    outputs: Sequence[OutputSpec],
    inputs: Sequence[InputSpec],
    *,
    task: str | None = None,
    model_name: str = "",
) -> tuple[Head, ...]:
    """A head for every output, judged or not, in the order of the outputs.

    Args:
        outputs: The outputs, and the inner tensors that stand for some of them.
        inputs: The inputs.
        task: What the model was made for: an architecture (`DetrForObjectDetection`) or a task of the Hugging Face
            hub (`object-detection`).
        model_name: File or folder name of the model.
    """
    letters = "".join(char for char in (task or "").lower() if char.isalpha())
    views = [
        Evidence(
            spec=spec, outputs=outputs, inputs=inputs, task=letters, model=words(PurePath(model_name).name)
        )
        for spec in outputs
    ]
    verdicts = [judge(view) for view in views]
    if all(verdict.role == IGNORE for verdict in verdicts):
        verdicts = [_in_doubt(verdict) for verdict in verdicts]
    return tuple(_head(view, verdict) for view, verdict in zip(views, verdicts, strict=True))


def judge(evidence: Evidence) -> Verdict:
    """The verdict of the first rule that has one."""
    for rule in RULES:
        verdict = rule(evidence)
        if verdict is not None:
            return verdict
    return Verdict(role=VALUES, reason="numbers, as nothing says otherwise")


def _head(evidence: Evidence, verdict: Verdict) -> Head:
    axis = evidence.channel_axis if verdict.axis is None else verdict.axis
    last = verdict.role == IGNORE or axis == -1 or axis == len(evidence.spec.shape or ()) - 1
    return Head(
        name=evidence.spec.name,
        role=verdict.role,
        axis=-1 if last else axis,
        activated=verdict.activated,
        mask=evidence.mask() if last and verdict.role != IGNORE else None,
        reason=verdict.reason,
    )


def _in_doubt(verdict: Verdict) -> Verdict:
    if not verdict.doubtful:
        return verdict
    return dataclasses.replace(verdict, role=VALUES, reason="numbers, as no other output is judged")


def _no_numbers(e: Evidence) -> Verdict | None:
    if e.spec.dtype not in FLOATING:
        return Verdict(role=IGNORE, reason=f"{e.spec.dtype} does not move by degrees")
    if e.spec.shape is not None and 0 in e.spec.shape:
        return Verdict(role=IGNORE, reason="it is empty")
    return None


def _stood_for(e: Evidence) -> Verdict | None:
    for other in e.outputs:
        if e.spec.name in other.stands_for:
            return Verdict(role=IGNORE, reason=f"judged at {other.name}, ahead of its jumps")
    if e.spec.producer in DISCONTINUOUS:
        return Verdict(role=IGNORE, reason=f"behind {e.spec.producer}, which jumps")
    return None


def _cache(e: Evidence) -> Verdict | None:
    if e.named(CACHE):
        return Verdict(role=IGNORE, reason="keys and values for the next token", doubtful=True)
    return None


def _inner_states(e: Evidence) -> Verdict | None:
    result = any(words(other.name).isdisjoint(INNER | CACHE) for other in e.others)
    if (e.named(INNER) and result) or (e.named(STATE) and e.beside(LOGITS)):
        return Verdict(role=IGNORE, reason="inner states beside the result", doubtful=True)
    return None


def _comparisons(e: Evidence) -> Verdict | None:
    if e.named(COMPARISON) and e.beside(EMBEDDING):
        return Verdict(
            role=IGNORE, reason="compares samples with each other; embeddings are judged", doubtful=True
        )
    return None


def _softmax(e: Evidence) -> Verdict | None:
    if e.spec.producer not in SOFTMAX:
        return None
    axis, shape = e.run_axis, e.spec.shape
    if shape and axis % len(shape) == 0:
        return Verdict(role=VALUES, reason="a softmax over the samples")
    if shape and shape[axis] == 1:
        return Verdict(role=IGNORE, reason="a softmax over one entry is always 1", doubtful=True)
    activated = e.spec.producer == "Softmax"
    return Verdict(role=CLASSES, axis=axis, activated=activated, reason=f"behind {e.spec.producer}")


def _normalized(e: Evidence) -> Verdict | None:
    if e.spec.producer in NORMALIZING:
        return Verdict(role=DIRECTION, axis=e.run_axis or e.last_axis, reason="normalised to unit length")
    return None


def _named_numbers(e: Evidence) -> Verdict | None:
    if e.named(NUMBER) and not e.named(CLASS | YES_NO):
        return Verdict(role=VALUES, reason="coordinates or sizes by name")
    return None


def _sigmoid(e: Evidence) -> Verdict | None:
    if e.spec.producer in SIGMOID:
        return Verdict(role=PROBABILITIES, activated=True, reason=f"behind {e.spec.producer}")
    return None


def _scaled_sigmoid(e: Evidence) -> Verdict | None:
    if e.spec.producer == SCALED_SIGMOID:
        return Verdict(role=VALUES, reason="a sigmoid on a scale of its own")
    return None


def _one_number(e: Evidence) -> Verdict | None:
    dims = e.dims
    lone = dims is not None and (len(dims) == 1 or (len(dims) == 2 and dims[1] == 1))
    if lone and e.spec.producer in LINEAR:
        return Verdict(role=PROBABILITIES, reason="one logit per sample")
    return None


def _dense_task(e: Evidence) -> Verdict | None:
    lone = not e.others and not e.model.isdisjoint(SEGMENTER)
    segments = e.made_for("semanticsegmentation", "imagesegmentation") or lone
    if segments and (e.axes or 0) >= 4 and not e.named(YES_NO):
        one = (e.spec.shape or ())[e.channel_axis] == 1
        what = "yes or no" if one else "classes"
        return Verdict(role=PROBABILITIES if one else CLASSES, reason=f"{what} for pixels by what it is for")
    if e.made_for("depthestimation"):
        return Verdict(role=VALUES, reason="depths by its task")
    return None


def _span_task(e: Evidence) -> Verdict | None:
    if e.made_for("questionanswering") and e.axes == 2 and e.named(SPAN):
        return Verdict(role=CLASSES, axis=-1, reason="one position of the text by its task")
    return None


def _class_task(e: Evidence) -> Verdict | None:
    if e.axes not in (None, 2, 3) or e.named(FEATURE | EMBEDDING):
        return None
    tasks = TOKEN_TASKS if e.axes == 3 else (*TOKEN_TASKS, "classification")
    if e.made_for(*tasks) and (not e.others or e.named(LOGITS)):
        return Verdict(role=CLASSES, axis=e.last_axis, reason="classes by its task")
    if e.made_for("objectdetection") and e.named(LOGITS):
        return Verdict(role=CLASSES, axis=-1, reason="classes by its task")
    return None


def _named_yes_no(e: Evidence) -> Verdict | None:
    classifier = e.axes == 2 and not e.others and e.spec.producer in LINEAR
    if e.named(YES_NO) and e.spec.producer not in DIRECT and not classifier:
        return Verdict(role=PROBABILITIES, reason="scores by name")
    return None


def _named_embedding(e: Evidence) -> Verdict | None:
    made = e.made_for("featureextraction", "sentencesimilarity") and not e.named(FEATURE)
    model = not e.model.isdisjoint(EMBEDDING | EMBEDDER) and not e.named(CLASS | FEATURE)
    if (e.named(EMBEDDING) or made or model) and e.axes in (None, 2):
        return Verdict(role=DIRECTION, axis=e.last_axis, reason="an embedding by name")
    if e.named(EMBEDDING | FEATURE):
        return Verdict(role=VALUES, reason="features by name")
    return None


def _named_classes(e: Evidence) -> Verdict | None:
    if not e.named(CLASS):
        return None
    if (e.axes or 0) >= 4:
        return Verdict(role=CLASSES, reason="classes of pixels by name")
    if e.axes == 3:
        return Verdict(role=CLASSES, axis=e.channel_axis, reason="classes by name")
    return Verdict(role=CLASSES, axis=e.last_axis, reason="classes by name")


def _model_of_numbers(e: Evidence) -> Verdict | None:
    if not e.model.isdisjoint(NUMBER_MODEL):
        return Verdict(role=VALUES, reason="coordinates by the model's name")
    return None


def _sizes_of_numbers(e: Evidence) -> Verdict | None:
    if e.axes == 2 and e.others and e.dims is not None and e.dims[1] in SIZES:
        return Verdict(role=VALUES, reason=f"{e.dims[1]} coordinates beside other outputs")
    return None


def _recognizer(e: Evidence) -> Verdict | None:
    if e.axes == 3 and not e.model.isdisjoint(RECOGNIZER) and e.spec.producer in LINEAR:
        return Verdict(role=CLASSES, axis=-1, reason="characters by the model's name")
    return None


def _tagger(e: Evidence) -> Verdict | None:
    if e.axes == 3 and not e.others and e.reads_tokens and e.spec.producer in PRODUCT:
        return Verdict(role=CLASSES, axis=-1, reason="one row of logits per token")
    return None


def _classifier(e: Evidence) -> Verdict | None:
    if e.axes in (None, 2) and e.spec.producer in LINEAR:
        return Verdict(role=CLASSES, axis=e.last_axis, reason="one row of logits per sample")
    return None


RULES: tuple[Rule, ...] = (
    _no_numbers,
    _stood_for,
    _cache,
    _inner_states,
    _comparisons,
    _softmax,
    _normalized,
    _named_numbers,
    _sigmoid,
    _scaled_sigmoid,
    _one_number,
    _dense_task,
    _span_task,
    _class_task,
    _named_yes_no,
    _named_embedding,
    _named_classes,
    _model_of_numbers,
    _sizes_of_numbers,
    _recognizer,
    _tagger,
    _classifier,
)
"""In order; the first that answers decides."""
