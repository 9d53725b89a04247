"""Model and data in, profile out."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

import lampq
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.measure import Damage, measure_activations, measure_damage, measure_weight_error
from lampq.core.measuring.model import Model
from lampq.core.measuring.pairs import measure_pairs
from lampq.core.measuring.reference import Reference, measure_reference
from lampq.core.measuring.traces import EMPIRICAL, TRUE, Traces, measure_traces
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.option import Option, all_options
from lampq.core.values.profile import Profile
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.rounding_kinds import NEAREST
from lampq.core.values.shard import Shard
from lampq.core.values.tables import known_tables
from lampq.verbs.input_ranges import InputRanges, input_ranges, measure_joint


def profile(
    model: Model,
    batch: BatchLike | None = None,
    *,
    bits: Sequence[int] = tuple(range(2, 9)),
    act_bits: int | Sequence[int] | None = None,
    act_range: str | None = None,
    tolerance: float = 0.1,
    container: str = "bitplane",
    block: int | None = None,
    fisher: str = TRUE,
    rounding: str = NEAREST,
    fisher_draws: int = 2,
    labels: np.ndarray | None = None,
    shard: Shard | None = None,
    seed: int = 0,
    data_summary: dict[str, Any] | None = None,
    progress: Progress = quiet,
) -> Profile:
    """Measure all that allocation needs.

    With data, every layer is quantized alone at every width and the change of the outputs kept (damage, and how the
    changes of layers act together where that fits in memory), activations get their statistics, and Fisher traces
    come from gradients where the model has them. Without data there are weight statistics and errors only.

    Args:
        model: A readable model (`lampq.read`).
        batch: Calibration inputs, preprocessed, samples first; None profiles without data.
        bits: Weight widths.
        act_bits: Width or widths of the layers' inputs; None leaves them float. PyTorch models take 2 to 8 and are
            measured with their inputs rounded, every weight width with every input width; others take 8.
        act_range: How the range of an input is chosen: `mse`, `minmax` or `percentile` of the calibration data, or
            `token`: each token its own. The default is `mse` for PyTorch models and `minmax`, the only one, for others.
        tolerance: Where rounding weights and inputs apart predicts the damage of rounding both to within this
            fraction, the prediction is taken instead of a measurement; 0 measures every pair of widths.
        container: `bitplane` (exactly b bits a weight) or `int8`.
        block: Weights of a row that share a scale; None gives each output channel one.
        fisher: `true`, with labels drawn from the predictions (from forward passes where the model has no
            gradients), `empirical`, with `labels`, or `forward`.
        fisher_draws: Draws per sample, or perturbations per layer with forward passes; 0 skips the traces.
        labels: Labels of the data, shape (samples,).
        shard: Measure this part of `batch` alone; `lampq.merge` makes one profile of all parts.
        rounding: `nearest`, or `inputs`: codes are chosen for the least error of the layers' outputs on the
            calibration inputs, which costs time and loses several times less at low widths. Applying the plan
            then needs those inputs too.
        seed: Seeds the perturbations.
        data_summary: Said of the data in the provenance.
        progress: Told what is being measured and how far it is.

    Raises:
        RecordError: Weights, activations or outputs are not finite; names the layer.
        AdapterError: The model's format has no such input widths or ranges, or none of its outputs is judged.
    """
    options = all_options(bits, act_bits)
    if act_bits is not None and batch is None:
        raise RecordError("activation widths need calibrated ranges; profile the model with --data")
    # Shards choose the same codes and ranges: those for all samples.
    model = with_rounding(model, rounding, block, batch)
    layers = quantizable(model)
    reference = None if batch is None else measure_reference(model, batch)
    ranges = None if reference is None else input_ranges(model, layers, options, reference.inputs, act_range)
    numbers = None
    if shard is not None:
        if reference is None:
            raise RecordError(f"shard {shard} of no data: profile with --data, or without a shard")
        numbers = shard.numbers(reference.inputs.samples)
        reference, labels = reference.take(numbers), None if labels is None else labels[numbers]
    payload = stored_bytes(model, layers, options, container)
    traces, joint = None, None
    inputs: dict[str, Any] = {}
    if reference is None:
        widths = [option.weight_bits for option in options]
        damage = measure_weight_error(model, layers, widths, progress=progress)
    else:
        damage, inputs = _measure(
            model, layers, options, reference, payload >= 0, ranges, tolerance, progress
        )
        layers = measure_activations(model, layers, reference.inputs)
        if fisher_draws:
            traces = measure_traces(
                model,
                reference,
                kind=fisher,
                draws=fisher_draws,
                seed=seed,
                truth=labels,
                samples=numbers,
                progress=progress,
            )
            layers = tuple(_with_traces(layer, traces) for layer in layers)
        if fisher_draws and ranges is not None:
            joint = measure_joint(
                model,
                layers,
                options,
                reference,
                ranges,
                truth=labels if fisher == EMPIRICAL else None,
                draws=fisher_draws,
                seed=seed,
                samples=numbers,
                progress=progress,
            )
    return Profile(
        layers=layers,
        options=options,
        rest_bytes=model.rest_bytes(activations=any(option.activation_bits for option in options)),
        container=container,
        block=block,
        rounding=rounding,
        tables=known_tables(
            weight_error=damage.weight_error,
            payload_bytes=payload,
            kl=damage.kl,
            changed=damage.changed,
            gram=damage.gram,
            joint_fisher=joint,
            activation_range=None if ranges is None else ranges.table,
            signature=None if reference is None else reference.readout.signature(reference.outputs),
        ),
        per_token=ranges is not None and ranges.per_token,
        heads=() if reference is None else reference.readout.heads,
        samples=0 if reference is None else reference.inputs.samples,
        shard=shard,
        provenance={
            "model": model.path.name,
            "format": model.format,
            "digest": model.digest,
            "data": data_summary or {},
            "seed": seed,
            "fisher": None if traces is None else {"kind": traces.kind, "note": traces.note},
            "fisher_draws": 0 if traces is None else fisher_draws,
            **({"activations": inputs} if inputs else {}),
            "versions": {
                "lampq": lampq.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )


def quantizable(model: Model) -> tuple[Layer, ...]:
    """The layers of a model, of which there must be some.

    Raises:
        AdapterError: There are none.
    """
    layers = model.layers()
    if not layers:
        stored = len(model.stored_bits())
        already = f"; {stored} are quantized already" if stored else ""
        raise AdapterError(
            f"{model.path.name} has no float weights to quantize{already}: `lampq inspect` lists them"
        )
    return layers


def _measure(
    model: Model,
    layers: Sequence[Layer],
    options: Sequence[Option],
    reference: Reference,
    available: np.ndarray,
    ranges: InputRanges | None,
    tolerance: float,
    progress: Progress,
) -> tuple[Damage, dict[str, Any]]:
    """Damage of single layers, and what the provenance says of rounded inputs."""
    if ranges is None:
        widths = [option.weight_bits for option in options]
        damage = measure_damage(
            model,
            layers,
            widths,
            reference.inputs,
            available=available,
            reference=reference,
            progress=progress,
        )
        return damage, {}
    found = measure_pairs(
        model,
        layers,
        options,
        reference.inputs,
        ranges.rule,
        available=available,
        reference=reference,
        tolerance=tolerance,
        progress=progress,
    )
    return found.damage, {"range": ranges.method, **found.summary()}


def _with_traces(layer: Layer, traces: Traces) -> Layer:
    return dataclasses.replace(
        layer, fisher=traces.weight[layer.name], activation_fisher=traces.activation.get(layer.name)
    )


def stored_bytes(
    model: Model, layers: Sequence[Layer], options: Sequence[Option], container: str
) -> np.ndarray:
    """Bytes of codes and scales of every layer at every option, int64, shape (L, J); -1 where it cannot be stored."""

    def stored(layer: Layer, width: int) -> int:
        size = model.payload_bytes(layer, width, container)
        return -1 if size is None else size

    widths = [option.weight_bits for option in options]
    table = {(layer.name, width): stored(layer, width) for layer in layers for width in set(widths)}
    return np.array([[table[layer.name, width] for width in widths] for layer in layers], dtype=np.int64)
