"""How surprised a language model is by a text: the exponential of the mean negative log-likelihood of a token."""

from __future__ import annotations

import math

import numpy as np

from lampq.core.values.batch import Group
from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES, Head
from lampq.metrics.case import Case
from lampq.metrics.metric import INPUTS, Metric


def perplexity(case: Case) -> float:
    """Exp of the mean of -log p(next token), over all tokens but the first of each text, padding left out.

    Raises:
        RecordError: The model has no input of tokens, another vocabulary, or no text two tokens.
    """
    head = case.lone((CLASSES,), "perplexity")
    total, tokens = 0.0, 0
    for outputs, inputs in zip(case.outputs.groups, case.inputs.groups, strict=True):
        loss, count = _surprise(outputs[head.name], inputs, head)
        total, tokens = total + loss, tokens + count
    if not tokens:
        raise RecordError("metric perplexity: no text has two tokens, so there is nothing to predict")
    return math.exp(min(total / tokens, 700.0))


def _surprise(logits: np.ndarray, inputs: Group, head: Head) -> tuple[float, int]:
    """Summed -log p of the next tokens, nats, and their number."""
    ids = _token_ids(inputs)
    if logits.ndim != 3 or logits.shape[:2] != ids.shape or head.axis not in (-1, 2):
        raise RecordError(
            f"metric perplexity: output {head.name} of shape {logits.shape} does not predict the next of tokens "
            f"of shape {ids.shape}"
        )
    if ids.max() >= logits.shape[-1]:
        raise RecordError(
            f"metric perplexity: the texts have token {int(ids.max())}, but the model predicts {logits.shape[-1]}; "
            f"the tokenizer belongs to another model"
        )
    masks = [array for name, array in inputs.items() if "mask" in name.lower() and array.shape == ids.shape]
    counts = np.ones(ids.shape, bool) if not masks else masks[0] != 0
    # A token counts where it and the one before are there.
    counts = counts[:, 1:] & counts[:, :-1]
    scores = logits[:, :-1].astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(scores, ids[:, 1:, None].astype(np.int64), axis=-1)[..., 0]
    loss = np.log(np.exp(scores).sum(axis=-1)) - chosen
    return float(loss[counts].sum()), int(counts.sum())


def _token_ids(inputs: Group) -> np.ndarray:
    named = [
        array
        for name, array in inputs.items()
        if array.ndim == 2
        and array.dtype.kind in "iu"
        and not any(word in name.lower() for word in ("mask", "type", "segment", "position"))
    ]
    if len(named) != 1:
        raise RecordError("metric perplexity goes with models that have one input of tokens")
    return named[0]


PERPLEXITY = Metric(name="perplexity", measure=perplexity, against=(INPUTS,), higher_is_better=False)
