"""Fisher traces and rows of gradients of a rebuilt model: one gradient per sample and direction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lampq.adapters.autograd.batched import Batched
from lampq.adapters.autograd.graph import Graph, tensors_of
from lampq.adapters.synthetic.observation import Observer
from lampq.adapters.torch.fisher import fisher_sums
from lampq.adapters.torch.gradient_rows import gradient_rows
from lampq.adapters.torch.observer import graph_observer
from lampq.adapters.torch.relevance import graph_relevance
from lampq.core.measuring.setting import RoundedLayers
from lampq.core.measuring.traces import Traces
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, NoGradientsError
from lampq.core.values.head import Head
from lampq.core.values.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rebuilt:
    """A model rebuilt in PyTorch, and the samples to take gradients for.

    Attributes:
        graph: The model.
        inputs: The samples.
        chunks: The same in the batches that the graph takes; the last may be filled up at its end.
        fixed: The only number of samples that the graph takes, or None.
        layers: Names of all layers; those that the graph has no leaf for do not move its outputs.
        heads: The judged outputs.
    """

    graph: Graph
    inputs: Batch
    chunks: Sequence[Batch]
    fixed: int | None
    layers: tuple[str, ...]
    heads: Sequence[Head]

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return self.inputs.samples

    def fisher(self, readout: Readout, draws: Draws, *, progress: Progress) -> Traces:
        """Fisher traces; see `core.measuring.traces.Differentiable`.

        Raises:
            AdapterError: Gradients are not finite; names the layer.
        """
        batched = self._batched()
        if batched is not None:
            batch = batched.batch
            whole = fisher_sums(batched, batch, readout, draws, activations=False, progress=progress)
            return self._traces(draws, whole.traces())
        leaves = list(self.graph.weights.values())
        sums = torch.zeros(len(leaves), dtype=torch.float64)
        for chunk in self._evaluated(readout, draws):
            for gradients in chunk.gradients(leaves):
                sums += torch.stack([_square(gradient) for gradient in gradients])
            progress("Fisher information", chunk.done, self.samples)
        if not torch.isfinite(sums).all():
            name = list(self.graph.weights)[int((~torch.isfinite(sums)).nonzero()[0])]
            raise AdapterError(f"the gradients of layer {name} are not finite; check the data")
        return self._traces(draws, dict(zip(self.graph.weights, (sums / self.samples).tolist(), strict=True)))

    def rows(
        self, candidates: RoundedLayers, readout: Readout, draws: Draws, *, progress: Progress
    ) -> Iterator[dict[str, np.ndarray]]:
        """First-order changes of the outputs; see `core.measuring.gradient_rows.GradientRows`.

        Yields:
            Layer -> float32, shape (samples, directions, W, 1).

        Raises:
            NoGradientsError: Inputs are to be rounded.
        """
        if any(rule is not None for _, rules in candidates.values() for rule in rules):
            raise NoGradientsError("inputs that are rounded have no gradients here")
        batched, weights = self._batched(), self.graph.weights
        if batched is not None:
            moving = {name: candidates[name] for name in candidates if name in weights}
            blocks = gradient_rows(batched, batched.batch, moving, readout, draws, progress=progress)
            yield from (self._with_others(block, candidates) for block in blocks)
            return
        errors = {name: _errors(weights[name], candidates[name][0]) for name in candidates if name in weights}
        leaves = [weights[name] for name in errors]
        for chunk in self._evaluated(readout, draws):
            directions = len(chunk.vectors)
            rows = {
                name: np.zeros((chunk.count, directions, len(rounded), 1), np.float32)
                for name, (rounded, _) in candidates.items()
            }
            places = np.ndindex(directions, chunk.count)
            for (direction, sample), gradients in zip(places, chunk.gradients(leaves), strict=True):
                for (name, error), gradient in zip(errors.items(), gradients, strict=True):
                    if gradient is not None:
                        rows[name][sample, direction, :, 0] = (error @ gradient.reshape(-1)).numpy()
            yield rows
            progress("gradients", chunk.done, self.samples)

    def relevance(self, *, progress: Progress) -> dict[str, float]:
        """Relevance of the layers; see `core.measuring.relevance.Relevant`.

        Raises:
            AdapterError: Relevance has no rule for an operator, or the graph decides by the values it computes.
        """
        shares = graph_relevance(self.graph, self.chunks, self.heads, self.samples, progress)
        return {name: shares.get(name, 0.0) for name in self.layers}

    def observer(self, most: int | None) -> Observer:
        """Forward passes that show normalizations and attentions; see `adapters.synthetic.observation`."""
        return graph_observer(self.graph, most)

    def _batched(self) -> Batched | None:
        return Batched.of(self.graph, self.heads, self.inputs, self.fixed)

    def _traces(self, draws: Draws, traces: Mapping[str, float]) -> Traces:
        return Traces(kind=draws.kind, weight={name: traces.get(name, 0.0) for name in self.layers})

    def _with_others(
        self, rows: Mapping[str, np.ndarray], candidates: RoundedLayers
    ) -> dict[str, np.ndarray]:
        """The rows, and zeros for layers that the outputs do not depend on."""
        count, directions = next((values.shape[:2] for values in rows.values()), (0, 0))
        return {
            name: rows[name] if name in rows else np.zeros((count, directions, len(rounded), 1), np.float32)
            for name, (rounded, _) in candidates.items()
        }

    def _evaluated(self, readout: Readout, draws: Draws) -> Iterator[_Evaluated]:
        """The chunks, run, with the directions of their samples."""
        draws, done = draws.of(self.samples), 0
        for chunk in self.chunks:
            count = min(chunk.samples, self.samples - done)
            outputs = self.graph(tensors_of(chunk))
            arrays = {name: t[:count].detach().double().cpu().numpy() for name, t in outputs.items()}
            reference = readout.reference(Batch([arrays]), chunk.take(range(count)))
            vectors = readout.directions(reference, draws.part(slice(done, done + count)))
            done += count
            yield _Evaluated(outputs=outputs, vectors=list(vectors), count=count, done=done)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Evaluated:
    """A chunk that has been run.

    Attributes:
        outputs: By name, with the graph of its gradients.
        vectors: Directions of its samples.
        count: Its samples.
        done: Samples so far, with these.
    """

    outputs: Mapping[str, torch.Tensor]
    vectors: Sequence[Batch]
    count: int
    done: int

    def gradients(self, leaves: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor | None, ...]]:
        """Of every direction and, within, of every sample: the gradients of its projection."""
        for vector in self.vectors:
            for sample in range(self.count):
                parts = [
                    (self.outputs[name][sample].double() * torch.from_numpy(np.array(array[sample]))).sum()
                    for name, array in vector.groups[0].items()
                ]
                yield torch.autograd.grad(
                    torch.stack(parts).sum(), leaves, retain_graph=True, allow_unused=True
                )


def _square(gradient: torch.Tensor | None) -> torch.Tensor:
    if gradient is None:
        return torch.zeros((), dtype=torch.float64)
    norm: torch.Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float64)
    return norm.square()


def _errors(leaf: torch.Tensor, weights: Sequence[np.ndarray]) -> torch.Tensor:
    """W_hat - W, one after the other, shape (W, size)."""
    float_weight = leaf.detach().numpy()
    return torch.from_numpy(
        np.stack([np.subtract(weight, float_weight, dtype=np.float32).ravel() for weight in weights])
    )
