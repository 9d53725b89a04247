"""What a metric is given: outputs of a model, of the float model, and whatever else is known of the samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lampq.core.values.batch import Batch, Group
from lampq.core.values.errors import RecordError
from lampq.core.values.head import CLASSES, PROBABILITIES, Head

if TYPE_CHECKING:
    from lampq.adapters.data import Preprocess
    from lampq.metrics.decoders.decoder import Decoder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Outputs to be judged. S samples, numbered through all groups of the batches.

    Attributes:
        outputs: Canonical outputs of the model (logits where the file gives probabilities).
        reference: The same of the float model, or None.
        heads: What the outputs mean.
        inputs: What the model was fed.
        labels: Class of each sample, int64, shape (S,), or None.
        truth: What else is known to be right: COCO annotations, masks, texts, tokens; None where nothing is.
        names: File of each sample, or empty.
        decoder: From outputs to boxes, or None: told by the outputs.
        preprocess: What was done to the images, or None.
    """

    outputs: Batch
    reference: Batch | None
    heads: tuple[Head, ...]
    inputs: Batch
    labels: np.ndarray | None = None
    truth: Any = None
    names: tuple[str, ...] = ()
    decoder: Decoder | None = None
    preprocess: Preprocess | None = None

    def lone(self, roles: Sequence[str], metric: str) -> Head:
        """The only output of one of these roles.

        Raises:
            RecordError: There is none, or there are several.
        """
        heads = [head for head in self.heads if head.role in roles]
        if len(heads) != 1:
            judged = ", ".join(f"{head.name} ({head.role})" for head in self.heads) or "none"
            raise RecordError(
                f"metric {metric} goes with one output of {' or '.join(roles)}; judged are {judged}; "
                f"choose with --output NAME=ROLE"
            )
        return heads[0]

    def compared(self) -> Batch:
        """Outputs of the float model.

        Raises:
            RecordError: There are none.
        """
        if self.reference is None:
            raise RecordError("there is no float model to compare with; give one as the reference")
        return self.reference


def samples(batch: Batch, name: str) -> Iterator[np.ndarray]:
    """An output sample by sample."""
    return (row for group in batch.groups for row in group[name])


def probabilities(group: Group, heads: Sequence[Head]) -> dict[str, np.ndarray]:
    """Outputs as a decoder reads them: probabilities for logits of classes and of yes or no, all else as it is."""
    roles = {head.name: head for head in heads}
    return {name: _activated(roles.get(name), array) for name, array in group.items()}


def image_size(group: Group) -> tuple[int, int]:
    """(height, width) of the images among some inputs.

    Raises:
        RecordError: No input holds images.
    """
    images = [array.shape[1:] for array in group.values() if array.ndim == 4]
    if len(images) != 1:
        raise RecordError("boxes are parts of images, and no single input of the model holds images")
    first, *_, last = images[0]
    return images[0][1:] if first in (1, 3, 4) or last not in (1, 3, 4) else images[0][:2]


def _activated(head: Head | None, array: np.ndarray) -> np.ndarray:
    if head is None or head.role not in (CLASSES, PROBABILITIES):
        return array
    if head.role == PROBABILITIES:
        yes: np.ndarray = 1 / (1 + np.exp(-array.clip(-80, 80)))
        return yes
    shifted = np.exp(array - array.max(axis=head.axis, keepdims=True))
    shares: np.ndarray = shifted / shifted.sum(axis=head.axis, keepdims=True)
    return shares
