"""Fisher traces of a model: from gradients where it has them, from forward passes where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np

from lampq.core.measuring.forward_fisher import forward_fisher
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import NoGradientsError, RecordError
from lampq.core.values.fisher_kinds import EMPIRICAL, FORWARD, KINDS
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.progress import Progress, quiet

# Samples whose traces are taken at a time.
_SAMPLES = 64
_TWO = Draws(count=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """Fisher traces of all layers, nats, averaged over samples.

    Attributes:
        kind: One of `KINDS`; `true` and `empirical` come from gradients.
        weight: Layer name -> trace of the weights' Fisher information.
        activation: Layer name -> the same of the layer's input, where it was measured.
        note: Why there are no gradients where they were asked for, or empty.
    """

    kind: str
    weight: Mapping[str, float]
    activation: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@runtime_checkable
class Differentiable(Protocol):
    """What a model has beside the protocol `Model` where gradients of its logits can be taken."""

    def layers(self) -> tuple[Layer, ...]:
        """See `Model`."""

    def fisher(
        self, batch: BatchLike, readout: Readout, draws: Draws, *, progress: Progress = quiet
    ) -> Traces:
        """Traces from gradients.

        Args:
            batch: Inputs, samples first.
            readout: What the outputs mean.
            draws: Directions to take gradients along.
            progress: Told how far it is.

        Raises:
            NoGradientsError: This model has none after all; says why.
        """


def measure_traces(
    model: Model,
    reference: Reference,
    draws: Draws = _TWO,
    *,
    kind: str | None = None,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> Traces:
    """Fisher traces of a model's layers.

    Averages over samples: traces of shards, weighted by their samples, add up to those of all.

    Args:
        model: The float model.
        reference: What the float model makes of the inputs.
        draws: Random directions per sample, or with forward passes per layer; with labels for `empirical`.
        kind: `true`, from gradients or, where the model has none, from forward passes; `empirical`, from
            gradients alone; `forward`; None: what the draws are of.
        journal: Keeps some samples at a time, or with forward passes every draw.
        progress: Told how far it is.

    Raises:
        RecordError: The kind is unknown, labels are missing, or logits are not finite.
        AdapterError: Gradients are not finite, or `empirical` is wanted of a model without gradients or without a
            lone output of classes.
    """
    kind = draws.kind if kind is None else kind
    if kind not in KINDS:
        raise RecordError(f"Fisher information {kind!r} is none of {', '.join(KINDS)}")
    if kind == EMPIRICAL and draws.truth is None:
        raise RecordError(
            "the empirical Fisher information needs labelled data, such as a folder with one sub-folder per "
            "class; take the true one for data without labels"
        )
    if kind == EMPIRICAL:
        reference.readout.check_labels(reference.outputs)
    note = ""
    if kind != FORWARD:
        directions = draws if kind == EMPIRICAL else replace(draws, truth=None)
        try:
            if not isinstance(model, Differentiable):
                raise NoGradientsError(f"{model.format} models have none here")
            return _from_gradients(model, reference, directions, journal.within("traces"), progress)
        except NoGradientsError as err:
            if kind == EMPIRICAL:
                raise NoGradientsError(
                    f"the empirical Fisher information needs gradients, and {model.path.name} has none "
                    f"({err}); take the true or the forward one"
                ) from err
            note = f"no gradients ({err}): traces from forward passes"
    values = forward_fisher(
        model, reference, draws=draws.count, seed=draws.seed, journal=journal, progress=progress
    )
    return Traces(kind=FORWARD, weight=values, note=note)


def _from_gradients(
    model: Differentiable, reference: Reference, draws: Draws, journal: Journal, progress: Progress
) -> Traces:
    """Traces of some samples at a time, averaged over all."""
    samples, names = reference.inputs.samples, [layer.name for layer in model.layers()]
    draws, total = draws.of(samples), np.zeros((2, len(names)))
    for start in range(0, samples, _SAMPLES):
        part = slice(start, min(start + _SAMPLES, samples))

        def step(what: str, done: int, _: int, start: int = start) -> None:
            progress(what, start + done, samples)

        def measure(part: slice = part, step: Progress = step) -> np.ndarray:
            inputs = reference.inputs.take(range(part.start, part.stop))
            traces = model.fisher(inputs, reference.readout, draws.part(part), progress=step)
            return np.array([[by.get(n, np.nan) for n in names] for by in (traces.weight, traces.activation)])

        share = (part.stop - part.start) / samples
        total += share * journal.array(f"{start}", total.shape, measure)
    weight, activation = (
        {name: value for name, value in zip(names, row, strict=True) if not np.isnan(value)}
        for row in total.tolist()
    )
    return Traces(kind=draws.kind, weight=weight, activation=activation)
