"""A model file with some weights replaced and some outputs judged: how it is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from lampq.adapters.joining import canonical_outputs
from lampq.adapters.padding import without_padding
from lampq.adapters.replaced import named
from lampq.adapters.tflite.batches import Chunk, Values
from lampq.adapters.tflite.cuts import Cuts
from lampq.adapters.tflite.graph import Subgraph
from lampq.adapters.tflite.heads import Judgement
from lampq.adapters.tflite.opened import Opened, Read
from lampq.adapters.tflite.operands import CONV, DEPTHWISE
from lampq.adapters.tflite.places import Site
from lampq.adapters.tflite.runtime import Session
from lampq.adapters.tflite.weights import Weight
from lampq.core.values.batch import Batch


class Variant:
    """A model file with some weights replaced and some outputs judged.

    Args:
        opened: The file.
        judgement: Its outputs and what they mean.
        replaced: Weights in place of the stored ones.
    """

    def __init__(
        self, opened: Opened, judgement: Judgement, replaced: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self.opened = opened
        self.judgement = judgement
        self.replaced = dict(replaced or {})
        self._session: Session | None = None

    def replacing(self, weights: Mapping[str, np.ndarray]) -> Variant:
        """The same with some more weights replaced."""
        return Variant(self.opened, self.judgement, {**self.replaced, **weights})

    @cached_property
    def read(self) -> Read:
        """The outputs that are judged."""
        return tuple(output for output, _ in self.judgement.judged)

    @property
    def tensors(self) -> tuple[int, ...]:
        """Their tensors."""
        return tuple(output.tensor for output in self.read)

    @property
    def cuts(self) -> Cuts:
        """The graph in front of them, in parts."""
        return self.opened.cuts(self.tensors)

    def named(self, name: str) -> Weight:
        """A weight by the name of its layer.

        Raises:
            AdapterError: No layer is so called.
        """
        return named(self.opened.weights, name, whose=str(self.opened.path))

    def values(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record."""
        replaced = self.replaced.get(name)
        return self.opened.values(self.named(name)) if replaced is None else replaced

    def weights(self, more: Mapping[str, np.ndarray] | None = None) -> dict[Weight, np.ndarray]:
        """All replaced weights, and more."""
        return {self.named(name): array for name, array in {**self.replaced, **(more or {})}.items()}

    def reaches(self, weight: Weight) -> bool:
        """Whether a judged output depends on a weight, as far as the operators tell."""
        return self.cuts.first(weight) is not None or bool(self.cuts.needed & self.opened.flow.calls)

    def run(self, inputs: Batch) -> Batch:
        """The judged outputs of checked inputs; see `lampq.core.measuring.model.Model.run`."""
        many = None if self.replaced else self.opened.resized(self.read)
        native = self._native()
        chunks = self.opened.batches.chunks(inputs, many=many is not None)
        size = self.opened.interface.native_batch
        results = [(native if many is None or c.size == size else many).run(c.feeds) for c in chunks]
        return self.joined(chunks, results)

    def joined(self, chunks: Sequence[Chunk], results: Sequence[Values]) -> Batch:
        """The canonical outputs of chunks."""
        outputs = self.opened.batches.joined(self.read, chunks, results)
        return canonical_outputs(outputs, [head for _, head in self.judgement.judged])

    def taps(self, inputs: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
        """Inputs of the layers, in pieces; see `lampq.core.measuring.model.Model.taps`.

        One piece per native batch and place. Left out are layers of other signatures, those that no judged output
        depends on, and those whose input does not meet the rows of their weight, such as tables.
        """
        opened, main = self.opened, self.opened.main
        places = [
            (weight, site, main.ops[site.op].inputs[site.source])
            for weight in opened.survey.weights
            for site in weight.sites
            if site.subgraph == main.index and site.source is not None and site.op in self.cuts.needed
        ]
        chunks = opened.batches.chunks(inputs)
        fed = opened.interface.tensors
        tensors = tuple(dict.fromkeys(t for _, _, t in places if t not in fed))
        if not places:
            return
        if tensors:
            _ = opened.session(self.tensors)
        session = opened.open(self.weights(), tensors) if tensors else None
        for chunk in chunks:
            results = [] if session is None else session.run(chunk.feeds)
            values = dict(zip((*fed, *tensors), (*chunk.feeds, *results), strict=True))
            positions: dict[str, int] = {}
            for weight, site, source in places:
                uses = _uses(main, site, values[source]) // chunk.size
                positions[weight.name] = positions.get(weight.name, 0) + uses
            for weight, _, source in places:
                real = without_padding(values[source], chunk.samples, chunk.size)
                yield weight.name, real, positions[weight.name]

    def _native(self) -> Session:
        if not self.replaced:
            return self.opened.session(self.tensors)
        if self._session is None:
            # The trial run of the model as it is guards this one.
            _ = self.opened.session(self.tensors)
            self._session = self.opened.open(self.weights(), self.tensors)
        return self._session


def _uses(subgraph: Subgraph, site: Site, source: np.ndarray) -> int:
    """How often an operator uses each of its weights on an input."""
    if site.op_name in (CONV, DEPTHWISE):
        _, height, width, _ = subgraph.shape(subgraph.ops[site.op].outputs[0])
        return len(source) * height * width
    return source.size // int(source.shape[-1])
