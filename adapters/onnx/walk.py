"""A run of a graph, segment by segment, that stops at every layer and goes on with its weights replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lampq.adapters.onnx import batches
from lampq.adapters.onnx.chain import Chain, State
from lampq.adapters.onnx.sites import Site
from lampq.adapters.padding import without_padding


class OnnxWalk:
    """See `lampq.core.measuring.walk.Walk`.

    Args:
        chain: The segments.
        states: In front of the first of them, one for each chunk.
        chunks: The samples.
        positions: How often a sample of each chunk uses each weight.
        replaced: Weights that differ from the stored, by layer name.
    """

    def __init__(
        self,
        chain: Chain,
        states: list[State],
        chunks: Sequence[batches.Chunk],
        positions: Sequence[Mapping[str, int]],
        replaced: Mapping[str, np.ndarray],
    ) -> None:
        self._chain = chain
        self._start, self._states, self._at = list(states), states, 0
        self._chunks = chunks
        self._positions = positions
        self._replaced = dict(replaced)
        # Layers are asked for in the order of their positions: where each is behind the last, none is passed twice.
        places = [chain.places[name] for name in positions[0] if name in chain.places]
        self._returns = any(len(own) > 1 for own in places) or places != sorted(places)

    def inputs(self, name: str) -> Iterator[tuple[np.ndarray, int]]:
        """Inputs of a layer, as the model's taps have them."""
        for place in self._chain.places[name]:
            self._advance(place)
            feeds = self._chain.feeds(self._replaced, of=(name,))
            for site, number, index, array in self._chain.look(self._states, place, feeds, name):
                yield input_rows(site, number, array, self._chunks[index]), self._positions[index][name]

    def replace(self, name: str, value: np.ndarray) -> None:
        """Go on with other weights of a layer; from the start, where the walk is past its first use."""
        self._replaced[name] = value
        if self._chain.places[name] and self._chain.places[name][0] < self._at:
            self._return()

    def _return(self) -> None:
        """To the start.

        Raises:
            RuntimeError: Layers were not asked for in order, and weights of those behind are gone.
        """
        if not self._returns:
            raise RuntimeError("a walk is asked for layers in the order of the model")
        self._states, self._at = list(self._start), 0

    def _advance(self, place: int) -> None:
        if place < self._at:
            self._return()
        for index in range(self._at, place):
            changed = [name for name in self._replaced if index in self._chain.places[name]]
            self._chain.advance(self._states, index, self._chain.feeds(self._replaced, of=changed))
            for name in () if self._returns else changed:
                del self._replaced[name]
        self._at = place


def input_rows(site: Site, number: int, array: np.ndarray, chunk: batches.Chunk) -> np.ndarray:
    """The input of a use of a layer, without what fills up a chunk: rows, or images of a convolution."""
    array = without_padding(array, chunk.count, chunk.size)
    slot = site.uses[number].slot
    if slot.form == "linear":
        array = np.moveaxis(array, slot.contraction, -1).reshape(-1, slot.in_features)
    return array
