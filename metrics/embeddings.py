"""Embeddings: how near they stay to the float model's, and whether the nearest is still the right one."""

from __future__ import annotations

import numpy as np

from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError
from lampq.core.values.head import DIRECTION, VALUES, Head
from lampq.metrics.case import Case
from lampq.metrics.metric import REFERENCE, Metric


def cosine(case: Case) -> float:
    """Mean cosine between the embeddings of the model and of the float model, over samples and outputs.

    Embeddings of tokens are averaged over the tokens that count before.
    """
    heads = _embedding_heads(case, "cosine")
    reference = case.compared()
    pairs = [(_unit(case.outputs, head, case.inputs), _unit(reference, head, case.inputs)) for head in heads]
    return float(np.mean([(one * other).sum(axis=1).mean() for one, other in pairs]))


def recall_at_one(case: Case) -> float:
    """Share of samples whose nearest embedding is their own.

    With two outputs of directions (images and texts) the one looks among the others of the model itself, both ways
    averaged; with one it looks among those of the float model.

    Raises:
        RecordError: There are no embeddings, or one sample alone.
    """
    heads = _embedding_heads(case, "recall1")
    if len(heads) > 2:
        raise RecordError(f"metric recall1 goes with one or two outputs, not {len(heads)}; ignore the others")
    one = _unit(case.outputs, heads[0], case.inputs)
    if len(one) < 2:
        raise RecordError("metric recall1 needs two samples at least")
    if len(heads) == 2:
        similar = one @ _unit(case.outputs, heads[1], case.inputs).T
        return (_found(similar) + _found(similar.T)) / 2
    return _found(one @ _unit(case.compared(), heads[0], case.inputs).T)


def _found(similar: np.ndarray) -> float:
    return float((similar.argmax(axis=1) == np.arange(len(similar))).mean())


def _embedding_heads(case: Case, metric: str) -> list[Head]:
    """The outputs of directions, or where there are none those of values.

    Raises:
        RecordError: There are neither.
    """
    for role in (DIRECTION, VALUES):
        heads = [head for head in case.heads if head.role == role]
        if heads:
            return heads
    raise RecordError(
        f"metric {metric} needs an output of {DIRECTION} or {VALUES}; choose with --output NAME=ROLE"
    )


def _unit(batch: Batch, head: Head, inputs: Batch) -> np.ndarray:
    """One vector of length 1 for each sample, float64."""
    rows = [
        _pooled(group[head.name], fed.get(head.mask or ""))
        for group, fed in zip(batch.groups, inputs.groups, strict=True)
    ]
    vectors = np.concatenate(rows)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def _pooled(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Tokens averaged where a mask says which of them count; anything else as one long vector."""
    array = array.astype(np.float64)
    if array.ndim != 3 or mask is None:
        return array.reshape(len(array), -1)
    weight = (mask != 0).astype(np.float64)[..., None]
    mean: np.ndarray = (array * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)
    return mean


COSINE = Metric(name="cosine", measure=cosine, against=(REFERENCE,))
RECALL1 = Metric(name="recall1", measure=recall_at_one, against=(REFERENCE,))
