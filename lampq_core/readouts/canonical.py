"""Outputs behind a softmax or sigmoid, back to logits, so that every role reads one form."""

from __future__ import annotations

import numpy as np

from lampq.core.values.head import CLASSES, PROBABILITIES, Head

# The smallest normal float32: a softmax that has underflowed counts as that.
SMALLEST = float(np.finfo(np.float32).tiny)
# float32 cannot tell probabilities closer to one from it; both ends are clipped alike, at logits of +-16.6.
NEAREST = 2.0**-24


def canonical(head: Head, array: np.ndarray) -> np.ndarray:
    """The output in the form that its role reads, float32, in its own shape.

    `classes`: logits, log p of a softmax. `probabilities`: logits, log p / (1 - p) of a sigmoid. Anything else, and
    what is not `activated`, is as it was.
    """
    array = np.asarray(array, dtype=np.float32)
    if not head.activated or head.role not in (CLASSES, PROBABILITIES):
        return array
    if head.role == CLASSES:
        return np.log(np.maximum(array, np.float32(SMALLEST)))
    p = np.clip(array, np.float32(NEAREST), np.float32(1 - NEAREST))
    return np.log(p) - np.log1p(-p)
