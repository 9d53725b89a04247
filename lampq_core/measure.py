"""Measurements of a model on calibration data: activations, single-layer damage, Fisher traces.

Everything here asks a `Model` for arrays and gives arrays back, so it works the same for every framework.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from lampq.core.coding import encoder
from lampq.core.divergence import first_unsound, kl_divergence, unmasked
from lampq.core.errors import RecordError
from lampq.core.gaussian import Gaussian
from lampq.core.layer import Layer
from lampq.core.model import Model
from lampq.core.quantizer import from_rows

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""


def quiet(what: str, done: int, total: int) -> None:
    """A progress report nobody sees."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Damage:
    """Single-layer measurements. L layers, J widths, S samples, C classes.

    Attributes:
        weight_error: ||W_hat - W||^2, float64, shape (L, J).
        kl: Mean nats of quantizing one layer alone, float64, shape (L, J), or None without data.
        logits: Float logits, float32, shape (S, C), or None.
        logit_delta: Differences to them, float32, shape (L, J, S, C), or None when not kept.
    """

    weight_error: np.ndarray
    kl: np.ndarray | None = None
    logits: np.ndarray | None = None
    logit_delta: np.ndarray | None = None


def measure_weight_error(
    model: Model, layers: Sequence[Layer], widths: Sequence[int], *, progress: Progress = quiet
) -> Damage:
    """Squared quantization error of every layer at every width; needs no data."""
    error = np.zeros((len(layers), len(widths)))
    for index, layer in enumerate(layers):
        encode = encoder(model, layer.name, layer.channel_axis)
        for column, bits in enumerate(widths):
            error[index, column] = encode(bits).squared_error.sum()
        progress("quantization errors", index + 1, len(layers))
    return Damage(weight_error=error)


def measure_damage(
    model: Model,
    layers: Sequence[Layer],
    widths: Sequence[int],
    batch: np.ndarray,
    *,
    available: np.ndarray | None = None,
    keep_logits_below: int = 1 << 28,
    progress: Progress = quiet,
) -> Damage:
    """Quantize one layer at a time and measure how the predictions move.

    Args:
        model: The float model.
        layers: Its layer records, in model order.
        widths: Weight widths to try.
        batch: Calibration inputs, samples first.
        available: Which widths to measure, bool, shape (L, J); the others are left at zero. None measures all.
        keep_logits_below: Logit differences are kept when they take no more bytes than this.
        progress: Told after every layer and width.

    Raises:
        RecordError: The model's own logits, or those with a layer quantized, are not finite; names the layer.
    """
    reference = check_logits(model.run(batch), "the float model")
    table = (len(layers), len(widths))
    error, kl = np.zeros(table), np.zeros(table)
    keep = 4 * len(layers) * len(widths) * reference.size <= keep_logits_below
    delta = np.zeros((*table, *reference.shape), dtype=np.float32) if keep else None
    position = {layer.name: index for index, layer in enumerate(layers)}

    def candidates() -> Iterator[tuple[str, int, np.ndarray]]:
        for index, layer in enumerate(layers):
            encode = encoder(model, layer.name, layer.channel_axis)
            for column, bits in enumerate(widths):
                if available is not None and not available[index, column]:
                    continue
                quantized = encode(bits)
                error[index, column] = quantized.squared_error.sum()
                yield layer.name, column, from_rows(quantized.dequantized(), layer.shape, layer.channel_axis)

    total = kl.size if available is None else int(available.sum())
    for done, (name, column, logits) in enumerate(model.sweep(batch, candidates()), start=1):
        index = position[name]
        logits = check_logits(logits, f"the model with layer {name} at {widths[column]} bits")
        kl[index, column] = kl_divergence(reference, logits).mean()
        if delta is not None:
            delta[index, column] = logits - reference
        progress("measuring layers", done, total)
    return Damage(weight_error=error, kl=kl, logits=reference, logit_delta=delta)


def measure_activations(model: Model, layers: Sequence[Layer], batch: np.ndarray) -> tuple[Layer, ...]:
    """Records completed with the statistics of each layer's input and its multiply-accumulates per sample.

    Raises:
        RecordError: An activation is not finite; names the layer.
    """
    found: dict[str, tuple[Gaussian, int]] = {}
    for name, values, positions in model.taps(batch):
        try:
            statistics = Gaussian.from_array(values)
        except RecordError as err:
            raise RecordError(f"the input of layer {name}: {err}") from err
        if name in found:
            statistics = found[name][0].merge(statistics)
        found[name] = (statistics, positions)
    return tuple(
        dataclasses.replace(layer, activation=found[layer.name][0], macs=found[layer.name][1] * layer.size)
        if layer.name in found
        else layer
        for layer in layers
    )


def check_logits(logits: np.ndarray, whose: str) -> np.ndarray:
    """The logits, if they are sound and of two or more classes; of ruled-out classes as finite numbers (`unmasked`).

    Raises:
        RecordError: They hold NaN or plus infinity (says whose and which sample), or are one score a sample, which a
            softmax makes 1 whatever it was: no damage would show.
    """
    if logits.ndim != 2:
        raise RecordError(f"{whose} gives outputs of shape {logits.shape}; expected (samples, classes)")
    if logits.shape[1] < 2:
        raise RecordError(
            f"{whose} gives one output a sample; LampQ needs logits of two or more classes "
            "(of a yes/no score s: the two logits s and 0)"
        )
    sample = first_unsound(logits)
    if sample is not None:
        raise RecordError(f"{whose} gives NaN or infinite logits (first for sample {sample})")
    return unmasked(logits)


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
            values[layer.name] = from_rows(quantized.dequantized(), layer.shape, layer.channel_axis)
    return values


def measure_plan(
    model: Model, widths: Mapping[str, int], batch: np.ndarray, reference: np.ndarray | None = None
) -> float:
    """Measured damage of quantizing many layers together, mean nats over the batch.

    Args:
        model: The float model.
        widths: Layer name -> weight bits.
        batch: Inputs, samples first.
        reference: Float logits of the batch; None computes them.
    """
    if reference is None:
        reference = check_logits(model.run(batch), "the float model")
    logits = model.with_weights(quantized_weights(model, widths)).run(batch)
    return float(kl_divergence(reference, check_logits(logits, "the quantized model")).mean())
