"""Weights rounded one layer after the other, each for the inputs that the layers quantized before it will give.

A layer of the quantized model reads x_hat where the float one reads x. Weights that make up for the difference
(`core.quantizing.ridge`) are what is rounded, by the second moment of x_hat. On a CIFAR-10 ViT this halves the damage
of plans between 2 and 3 bits (benchmarks/results/few_samples.md).

Source: Zhong et al. (2024), ERQ, arXiv:2407.06794; layer after layer as in GPTQ, arXiv:2210.17323.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from lampq.core.measuring.encoding import encoder, with_rounding
from lampq.core.measuring.model import Model, rounds_activations, windows_of
from lampq.core.measuring.moments import input_rows
from lampq.core.measuring.reference import input_batch
from lampq.core.measuring.refinement import with_refinement
from lampq.core.measuring.setting import Setting, plan_rule, site_settings
from lampq.core.measuring.walk import Walk, walk
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.quantizer import as_rows, from_rows, weight_of
from lampq.core.quantizing.ridge import Fold, corrected, judges_alone
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import RecordError
from lampq.core.values.layer import Layer
from lampq.core.values.memory import give_back
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.rounding_kinds import CORRECTED
from lampq.core.values.shelved_arrays import ShelvedArrays
from lampq.core.values.window import Window

AnyModel = TypeVar("AnyModel", bound=Model)

# Parts of the samples, the first of them left out, or each once.
_FOLDS = 4


def with_plan_coding(
    model: AnyModel, plan: Plan, batch: BatchLike | None, progress: Progress = quiet
) -> AnyModel:
    """The model with the coding that a plan asks for; what it has already is kept.

    Args:
        model: The float model.
        plan: A plan under the model's names of layers.
        batch: Calibration inputs, or None.
        progress: Told how far it is.

    Raises:
        RecordError: The plan rounds to the layers' inputs, and there are none.
    """
    model = with_rounding(model, plan.rounding, plan.block, batch)
    if plan.rounding == CORRECTED and not model.coding.targets:
        if batch is None:
            raise RecordError(
                "correcting layer after layer needs data; give --data, or take --rounding nearest"
            )
        model = with_correction(model, plan, batch, progress)
    if plan.refine and model.coding.learned is None:
        if batch is None:
            raise RecordError("the plan learns its codes from data; give --data")
        model = with_refinement(model, plan, batch, progress)
    return model


def with_correction(model: AnyModel, plan: Plan, batch: BatchLike, progress: Progress = quiet) -> AnyModel:
    """The model with a coding that makes up, in every layer, for the layers before it.

    Args:
        model: The float model, its coding with moments of the float inputs; these stay with layers whose inputs do not
            tell which values a weight meets (`core.measuring.moments`).
        plan: Widths, under the model's names of layers.
        batch: Calibration inputs, samples first.
        progress: Told after every layer.

    Raises:
        RecordError: An input is not finite.
    """
    batch = input_batch(model, batch)
    decisions = {decision.name: decision for decision in plan.layers}
    layers = [layer for layer in model.layers() if layer.name in decisions]
    coding = dataclasses.replace(model.coding.anew(), block=plan.block)
    count = min(_FOLDS, batch.samples)
    parts = [np.arange(start, batch.samples, count) for start in range(count)]
    rounds = rounds_activations(model)
    # Products of activations are rounded from the start.
    quantized = model.with_weights(site_settings(plan)) if rounds and plan.products else model
    walks = [(walk(model, batch.take(part)), walk(quantized, batch.take(part))) for part in parts]
    for number, layer in enumerate(layers):
        decision = decisions[layer.name]
        rule = plan_rule(decision) if rounds else None
        for _, ahead in walks if rule is not None else ():
            ahead.replace(layer.name, Setting(activation=rule))
        coding = _corrected(coding, model, layer, walks)
        codes = encoder(model.with_coding(coding), layer.name, layer.channel_axis)(*decision.option.weights)
        weight = weight_of(codes, layer.shape, layer.channel_axis)
        for _, ahead in walks:
            ahead.replace(layer.name, weight if rule is None else Setting(weight=weight, activation=rule))
        progress("correcting layers", number + 1, len(layers))
    del walks
    give_back()
    return model.with_coding(coding)


def _corrected(
    coding: Coding,
    model: Model,
    layer: Layer,
    walks: Sequence[tuple[Walk, Walk]],
) -> Coding:
    """The coding with the corrected weights of a layer, to be rounded by the moments of what it will read."""
    folds: list[Fold] = []
    window = windows_of(model).get(layer.name)
    for pair in walks:
        fold = _fold(layer, window, *pair)
        if fold is None:
            # The inputs do not tell which values a weight meets.
            return coding
        if len(folds) > 1 and judges_alone(folds[0]):
            # The others are never told apart.
            fold = Fold.of([folds.pop(), fold])
        folds.append(fold)
    every = Fold.of(folds)
    rows = corrected(as_rows(model.weight(layer.name), layer.channel_axis), folds)
    return dataclasses.replace(
        coding,
        moments=_with(coding.moments or {}, layer.name, every.own / np.float32(every.count)),
        targets=_with(coding.targets, layer.name, from_rows(rows, layer.shape, layer.channel_axis)),
    )


def _with(arrays: Mapping[str, np.ndarray], name: str, array: np.ndarray) -> ShelvedArrays:
    shelved = arrays if isinstance(arrays, ShelvedArrays) else ShelvedArrays(arrays)
    return shelved.with_array(name, array)


def _fold(layer: Layer, window: Window | None, exact: Walk, quantized: Walk) -> Fold | None:
    """Moments of the samples of two walks, which come piece by piece in the same order; None where there are none."""
    own, lost, count = np.zeros(()), np.zeros(()), 0
    for (values, positions), (changed, _) in zip(
        exact.inputs(layer.name), quantized.inputs(layer.name), strict=True
    ):
        x, x_hat = (input_rows(layer, array, positions, window) for array in (values, changed))
        if x is None or x_hat is None:
            return None
        own, lost, count = own + x_hat.T @ x_hat, lost + (x - x_hat).T @ x_hat, count + len(x)
    if not count:
        return None
    if not (np.isfinite(own).all() and np.isfinite(lost).all()):
        raise RecordError(
            f"the input of layer {layer.name} is not finite in the quantized model, or too large"
        )
    return Fold(own=own.astype(np.float32), lost=lost.astype(np.float32), count=count)
