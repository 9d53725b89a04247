"""Class logits as batches and readouts, for tests that think in arrays."""

import numpy as np

from lampq.core.measuring.interaction import InteractionBuilder, build_interaction
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.head import CLASSES, Head

HEAD = Head(name="logits", role=CLASSES)


def logits_batch(array):
    return Batch.of(np.asarray(array), name="logits")


def logits_readout(target):
    return Readout.fit((HEAD,), logits_batch(target), None)


def logits_interaction(target, delta):
    """The interaction of differences of shape (layers, options, samples, classes)."""
    rows = [[logits_batch(one) for one in row] for row in delta]
    return build_interaction(logits_readout(target), logits_batch(target), rows)


def logits_builder(target, *, centre=None, **settings):
    at = None if centre is None else logits_batch(centre)
    return InteractionBuilder(logits_readout(target), logits_batch(target), centre=at, **settings)


def logits_gram(model, settings, batch):
    """The gram matrix of a model's differences, by its definition.

    Args:
        model: The float model.
        settings: (layer, option, what `with_weights` takes).
        batch: Inputs.
    """
    reference = np.asarray(model.run(batch))
    shape = (max(i for i, _, _ in settings) + 1, max(j for _, j, _ in settings) + 1)
    delta = np.zeros((*shape, *reference.shape), dtype=np.float32)
    for i, j, replaced in settings:
        delta[i, j] = np.asarray(model.with_weights(replaced).run(batch)) - reference
    return logits_interaction(reference, delta).gram
