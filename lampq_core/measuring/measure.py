"""Measurements of a model on calibration data: activations, single-layer damage, Fisher traces.

Everything here asks a `Model` for arrays and gives arrays back, so it works the same for every framework.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lampq.core.measuring.encoding import encoder
from lampq.core.measuring.interaction import (
    MOST_BYTES,
    MOST_GRAM_BYTES,
    InteractionBuilder,
    peak_bytes,
    usual_rows,
)
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, input_batch, measure_reference
from lampq.core.quantizing.quantizer import weight_of
from lampq.core.readouts.comparison import changed_share
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import RecordError
from lampq.core.values.gaussian import Gaussian
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.option import Option
from lampq.core.values.progress import Progress, quiet, rest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Damage:
    """Single-layer measurements. L layers, J options.

    Attributes:
        weight_error: ||W_hat - W||^2, float64, shape (L, J).
        kl: Mean nats of quantizing one layer alone, float64, shape (L, J), or None without data. Measured, or to second
            order where gradients tell it (`core.measuring.gradient_rows`).
        changed: Share of the decisions that change, float64, shape (L, J), or None where outputs decide nothing.
        gram: Inner products of the outputs' differences (`core.measuring.interaction`), float64, shape (L, J, L, J),
            or None where there is no room for it.
        gram_square: Mean over samples of their squares (`core.measuring.gram_sums`), the same shape, or None.
        steps: Distance of neighbouring integers (`core.quantizing.quantizer.Quantized.step`), int64, shape (L, J);
            0 where nothing was measured.
    """

    weight_error: np.ndarray
    steps: np.ndarray
    kl: np.ndarray | None = None
    changed: np.ndarray | None = None
    gram: np.ndarray | None = None
    gram_square: np.ndarray | None = None


def measure_weight_error(
    model: Model,
    layers: Sequence[Layer],
    options: Sequence[Option],
    *,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> Damage:
    """Squared quantization error of every layer at every option; needs no data."""
    error = np.zeros((len(layers), len(options)))
    steps = np.zeros(error.shape, dtype=np.int64)
    tables, own = {"error": error, "steps": steps}, journal.within("errors")
    for index, layer in enumerate(layers):
        if not own.recall(f"{index}", tables, (index,)):
            error[index], steps[index] = _weight_errors(model, layer, options)
            own.keep(f"{index}", tables, (index,))
        progress("quantization errors", index + 1, len(layers))
    return Damage(weight_error=error, steps=steps)


def _weight_errors(model: Model, layer: Layer, options: Sequence[Option]) -> tuple[list[float], list[int]]:
    """Squared errors and steps of one layer; its weight is let go before the next is read."""
    encode = encoder(model, layer.name, layer.channel_axis, [option.weight_bits for option in options])
    encoded = (encode(*option.weights) for option in options)
    results = [(float(quantized.squared_error.sum()), quantized.step) for quantized in encoded]
    return [error for error, _ in results], [step for _, step in results]


def measure_damage(
    model: Model,
    layers: Sequence[Layer],
    options: Sequence[Option],
    batch: BatchLike,
    *,
    available: np.ndarray | None = None,
    reference: Reference | None = None,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> Damage:
    """Quantize one layer at a time and measure how the outputs move.

    Args:
        model: The float model.
        layers: Its layer records, in model order.
        options: What weights are rounded to.
        batch: Calibration inputs, samples first.
        available: Which options to measure, bool, shape (L, J); the others are left at zero. None measures all.
        reference: What the float model makes of `batch`; None runs it.
        journal: Keeps every layer and option.
        progress: Told after every layer and option.

    Raises:
        RecordError: The model's own outputs, or those with a layer quantized, are not finite; names the layer.
    """
    reference = measure_reference(model, batch) if reference is None else reference
    table = (len(layers), len(options))
    position = {layer.name: index for index, layer in enumerate(layers)}
    done = 0

    def candidates(collector: Collector, own: Journal) -> Iterator[tuple[str, int, np.ndarray]]:
        nonlocal done
        for index, layer in enumerate(layers):
            columns = [c for c in range(len(options)) if available is None or available[index, c]]
            widths = [options[column].weight_bits for column in columns]
            encode = encoder(model, layer.name, layer.channel_axis, widths)
            for column in columns:
                if own.recall(f"{index} {column}", collector.tables, (index, column)):
                    done += rest(index, len(layers))
                    continue
                quantized = encode(*options[column].weights)
                collector.error[index, column] = quantized.squared_error.sum()
                collector.steps[index, column] = quantized.step
                yield layer.name, column, weight_of(quantized, layer.shape, layer.channel_axis)

    slices = reference.slices()
    counts = np.full(table[0], table[1]) if available is None else available.sum(axis=1)
    total = len(slices) * sum(int(n) * rest(index, len(layers)) for index, n in enumerate(counts))
    parts = []
    for number, (share, part) in enumerate(slices):
        collector, own = Collector(part, table), journal.within(f"damage {number}")
        for name, column, outputs in model.sweep(part.inputs, candidates(collector, own)):
            part.checked(outputs, f"the model with layer {name} at {options[column].to_text()}")
            collector.add(position[name], column, outputs)
            own.keep(f"{position[name]} {column}", collector.tables, (position[name], column))
            done += rest(position[name], len(layers))
            progress("measuring layers", done, total)
        parts.append((share, collector.damage()))
    return averaged(parts)


def averaged(parts: Sequence[tuple[float, Damage]]) -> Damage:
    """The damage on all samples, from that on parts of them, each with its share."""

    def mean(name: str) -> np.ndarray | None:
        if getattr(parts[0][1], name) is None:
            return None
        return sum(share * getattr(part, name) for share, part in parts)

    if len(parts) == 1:
        return parts[0][1]
    means: dict[str, Any] = {name: mean(name) for name in ("kl", "changed", "gram", "gram_square")}
    return dataclasses.replace(parts[0][1], **means)


def scattering(damage: Damage, some: int, samples: int) -> Damage:
    """Damage of some samples as that of more, with its interactions as uncertain as they are.

    How far they scatter is told by the mean of their squares and a number of samples (`core.measuring.shrinking`).
    """
    if some == samples or some < 3 or damage.gram is None or damage.gram_square is None:
        return damage
    within = np.square(damage.gram)
    spread = (damage.gram_square - within) * ((samples - 2) / (some - 2))
    return dataclasses.replace(damage, gram_square=within + spread)


class Collector:
    """Takes in the outputs of one option after the other and keeps what a profile needs of them.

    Args:
        reference: The float model's outputs.
        table: Numbers of layers and options.

    Attributes:
        kl: Damage so far, nats, shape (L, J).
        error: ||W_hat - W||^2, float64, the same shape; whoever quantizes fills it in, and the next.
        steps: Distance of neighbouring integers, int64, the same shape.
    """

    def __init__(self, reference: Reference, table: tuple[int, int]) -> None:
        self._reference = reference
        self._decided = reference.readout.decisions(reference.outputs)
        self.kl, self.error = np.zeros(table), np.zeros(table)
        self.steps = np.zeros(table, dtype=np.int64)
        self._changed = np.zeros(table)
        columns = table[0] * table[1]
        fits = peak_bytes(columns, usual_rows(columns)) <= MOST_BYTES
        keep = fits and 8 * columns**2 <= MOST_GRAM_BYTES
        self._builder = (
            InteractionBuilder(reference.readout, reference.outputs, layers=table[0], options=table[1])
            if keep
            else None
        )

    def add(self, layer: int, option: int, outputs: Batch) -> None:
        """Take in the outputs with a layer at an option."""
        self.kl[layer, option] = self._reference.damage(outputs)
        if self._decided:
            self._changed[layer, option] = changed_share(
                self._decided, self._reference.readout.decisions(outputs)
            )
        if self._builder is not None:
            self._builder.add(layer, option, outputs.minus(self._reference.outputs))

    @property
    def tables(self) -> dict[str, np.ndarray]:
        """All that is filled in option by option, the first axes those of layers and options."""
        own = {"kl": self.kl, "changed": self._changed, "error": self.error, "steps": self.steps}
        return own if self._builder is None else own | self._builder.tables

    def damage(self) -> Damage:
        """All of it."""
        built = None if self._builder is None else self._builder.build()
        return Damage(
            weight_error=self.error,
            steps=self.steps,
            kl=self.kl,
            changed=self._changed if self._decided else None,
            gram=None if built is None else built.gram,
            gram_square=None if built is None else built.square,
        )


def measure_activations(model: Model, layers: Sequence[Layer], batch: BatchLike) -> tuple[Layer, ...]:
    """Records completed with the statistics of each layer's input and its multiply-accumulates per sample.

    Raises:
        RecordError: An activation is not finite; names the layer.
    """
    inputs: dict[str, tuple[Gaussian, int]] = {}
    for name, values, positions in model.taps(input_batch(model, batch)):
        try:
            statistics = Gaussian.from_array(values)
        except RecordError as err:
            raise RecordError(f"the input of layer {name}: {err}") from err
        if name in inputs:
            # Samples of several shapes have positions of their own: those of the largest count.
            statistics, positions = inputs[name][0].merge(statistics), max(positions, inputs[name][1])
        inputs[name] = (statistics, positions)
    return tuple(
        dataclasses.replace(layer, activation=inputs[layer.name][0], macs=inputs[layer.name][1] * layer.size)
        if layer.name in inputs
        else layer
        for layer in layers
    )


def quantized_weights(model: Model, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The values that layers take at given widths, in the stored shape, float32.

    Args:
        model: The float model.
        widths: Layer name -> weight bits; other layers are left out.
    """
    values = {}
    for layer in model.layers():
        if layer.name in widths:
            quantized = encoder(model, layer.name, layer.channel_axis)(widths[layer.name])
            values[layer.name] = weight_of(quantized, layer.shape, layer.channel_axis)
    return values


def measure_plan(
    model: Model, widths: Mapping[str, int], batch: BatchLike, reference: Reference | None = None
) -> float:
    """Measured damage of quantizing many layers together, mean nats over the batch.

    Args:
        model: The float model.
        widths: Layer name -> weight bits.
        batch: Inputs, samples first.
        reference: What the float model makes of them; None runs it.
    """
    reference = measure_reference(model, batch) if reference is None else reference
    outputs = model.with_weights(quantized_weights(model, widths)).run(reference.inputs)
    return reference.damage(reference.checked(outputs, "the quantized model"))
