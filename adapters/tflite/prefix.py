"""A batch carried forward through a model, up to the operator that first uses a weight."""

from __future__ import annotations

import numpy as np

from lampq.adapters.tflite.cuts import KEPT_BYTES, State
from lampq.adapters.tflite.variant import Variant
from lampq.core.values.batch import Batch


class Prefix:
    """The chunks of a batch in front of operators (`adapters.prefix`).

    Args:
        variant: The model. One that branches, loops or keeps a state is run whole each time.
        inputs: The batch, checked.
    """

    def __init__(self, variant: Variant, inputs: Batch) -> None:
        self._variant, self._inputs = variant, inputs
        self._chunks = variant.opened.batches.chunks(inputs)
        # The trial run of the model as it is guards those of its parts.
        _ = variant.opened.session(variant.tensors)

    def place(self, name: str) -> int | None:
        """The first operator that uses a layer, or None where no judged output depends on it."""
        cuts = self._variant.cuts
        return cuts.first(self._variant.named(name)) if cuts.possible else None

    def start(self) -> list[State]:
        """The inputs."""
        tensors = self._variant.opened.interface.tensors
        return [dict(zip(tensors, chunk.feeds, strict=True)) for chunk in self._chunks]

    def advance(self, states: list[State], begin: int, end: int) -> list[State] | None:
        """The values in front of operator `end`, where they take no more than 1 GiB."""
        cuts = self._variant.cuts
        if cuts.live_bytes(end, states) > KEPT_BYTES:
            return None
        return cuts.advance(states, begin, end, self._variant.weights())

    def finish(self, states: list[State], begin: int, name: str, weight: np.ndarray) -> Batch:
        """The outputs from the values in front of operator `begin`."""
        variant = self._variant
        if not variant.cuts.possible:
            return variant.replacing({name: weight}).run(self._inputs)
        weights = variant.weights({name: weight})
        return variant.joined(self._chunks, variant.cuts.finish(states, begin, weights))
