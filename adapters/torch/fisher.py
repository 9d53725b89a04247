"""Exact Fisher information of weights and activations, at the cost of one backward pass.

The pass is replayed from a tape with every layer's input and output gradient in hand. Weights take no
gradients of their own: what a plain backward pass spends on them pays for the per-sample norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import torch

from lampq.adapters.torch.devices import widest
from lampq.adapters.torch.gradients import Rows, squared_norms
from lampq.adapters.torch.replay import passes
from lampq.adapters.torch.variant import Replayable
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.progress import Progress, quiet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FisherSums:
    """Sums over samples; those of two shards add up to those of both.

    Attributes:
        samples: Samples in the sums.
        weight: Layer -> sum of squared per-sample gradients of the weights.
        activation: Layer -> the same of the layer's input, or empty.
    """

    samples: int
    weight: Mapping[str, float]
    activation: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: FisherSums) -> FisherSums:
        """The sums over both sets of samples.

        Raises:
            RecordError: The two are of different layers.
        """
        for name in ("weight", "activation"):
            if list(getattr(self, name)) != list(getattr(other, name)):
                raise RecordError(f"Fisher sums to add are of different layers ({name})")
        return FisherSums(
            samples=self.samples + other.samples,
            weight={name: value + other.weight[name] for name, value in self.weight.items()},
            activation={name: value + other.activation[name] for name, value in self.activation.items()},
        )

    def traces(self) -> dict[str, float]:
        """Layer -> trace of the Fisher information of its weights, nats, averaged over samples."""
        return {name: value / self.samples for name, value in self.weight.items()}

    def activation_traces(self) -> dict[str, float]:
        """Layer -> trace of the Fisher information of its input, nats, averaged over samples."""
        return {name: value / self.samples for name, value in self.activation.items()}


def fisher_sums(
    model: Replayable,
    batch: Batch,
    readout: Readout,
    draws: Draws,
    *,
    activations: bool = True,
    batch_size: int = 16,
    progress: Progress = quiet,
) -> FisherSums:
    """Sums of squared per-sample gradients of log p(y|x), for every layer.

    The traces are of the Fisher information with labels as `lampq.core.readouts` explains them:
    exact up to rounding for `exact` and `data`, unbiased for `probe` and `sampled`.

    Args:
        model: The model.
        batch: Inputs, samples first.
        readout: What the outputs mean.
        draws: Directions to take gradients along.
        activations: Whether to measure the inputs of layers as well.
        batch_size: Samples per pass.
        progress: Told after every batch.

    Raises:
        AdapterError: Labels do not fit, samples mix within a batch, or the gradients are not finite.
    """
    draws = draws.of(batch.samples)
    parts, done = [], 0
    for part in passes(model, batch, batch_size=batch_size, activations=activations):
        vectors = readout.directions(part.reference(readout), draws.part(slice(done, done + part.count)))
        collector = _Collector(model, activations)
        part.backward(vectors, collector.add_weight, collector.add_activation)
        parts.append(collector.sums(part.count, part.scale))
        done += part.count
        progress("Fisher information", done, batch.samples)
    return reduce(lambda one, other: one + other, parts)


class _Collector:
    """Squares of one pass, kept on the device until the end: reading each would make a GPU wait."""

    def __init__(self, model: Replayable, activations: bool) -> None:
        self._model = model
        self._activations = activations
        self._weight: dict[str, torch.Tensor] = {}
        self._activation: dict[str, torch.Tensor] = {}

    def add_weight(self, name: str, uses: list[Rows]) -> None:
        self._weight[name] = self._weight.get(name, 0) + squared_norms(uses).sum()

    def add_activation(self, name: str, gradient: torch.Tensor) -> None:
        square = torch.linalg.vector_norm(gradient.float()).to(widest(gradient)).square()
        self._activation[name] = self._activation.get(name, 0) + square

    def sums(self, count: int, scale: float) -> FisherSums:
        names = list(self._model.parameters)
        weight = {name: float(self._weight.get(name, 0)) / scale**2 for name in names}
        # A layer that this batch took no part in counts as zero.
        measured = [n for n in names if self._activations and _has_input(self._model, n)]
        activation = {name: float(self._activation.get(name, 0)) / scale**2 for name in measured}
        bad = next((n for n, v in (*weight.items(), *activation.items()) if not np.isfinite(v)), None)
        if bad is not None:
            raise AdapterError(
                f"the gradients of layer {bad} are not finite; check the data, or run without autocast"
            )
        return FisherSums(samples=count, weight=weight, activation=activation)


def _has_input(model: Replayable, name: str) -> bool:
    """Whether a layer reads activations: a table that is looked up does not."""
    return any(use.form != "lookup" for use in model.uses(name))
