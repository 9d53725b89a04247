"""Codes learned on the quantized network, where a model can be trained (`adapters.torch.refining`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from lampq.core.measuring.encoding import uniform_encoder
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import input_batch, measure_reference
from lampq.core.measuring.setting import simulated
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import AdapterError
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    from typing import Self

    from lampq.core.quantizing.quantizer import Quantized

AnyModel = TypeVar("AnyModel", bound=Model)

# Samples learned from: what each block reads and should give is held in memory for all of them.
_SAMPLES = 512


@runtime_checkable
class Trainable(Protocol):
    """A model whose codes can be learned."""

    def learned_codes(
        self,
        quantized: Self,
        codes: Mapping[str, Quantized],
        batch: Batch,
        steps: int,
        progress: Progress = quiet,
    ) -> Mapping[str, Quantized]:
        """Codes of the layers for which learning helped, by name.

        Args:
            quantized: The model with the weights of the codes, and its activations rounded.
            codes: Where learning starts, by layer.
            batch: Calibration inputs, easy samples first.
            steps: For each block.
            progress: Told after every block.
        """


def check_trainable(model: Model) -> None:
    """Refuse a model that cannot be trained.

    Raises:
        AdapterError: It cannot; says what can.
    """
    if not isinstance(model, Trainable):
        raise AdapterError(
            f"{model.path.name}: refinement trains, which {model.format} models cannot; leave out --refine, or take "
            f"the PyTorch model"
        )


def with_refinement(model: AnyModel, plan: Plan, batch: BatchLike, progress: Progress = quiet) -> AnyModel:
    """The model with a coding whose codes are learned as a plan says.

    Args:
        model: The float model, its coding the plan's before refinement.
        plan: Widths, under the model's names of layers, and how many steps each block is trained.
        batch: Calibration inputs, samples first.
        progress: Told after every block.

    Raises:
        AdapterError: The model cannot be trained.
    """
    check_trainable(model)
    assert isinstance(model, Trainable)
    inputs = input_batch(model, batch)
    some = inputs.take(np.linspace(0, inputs.samples - 1, min(_SAMPLES, inputs.samples)).astype(np.int64))
    reference, quantized = measure_reference(model, some), simulated(model, plan)
    lost = reference.readout.damage(reference.outputs, quantized.run(some))
    layers = {layer.name: layer for layer in model.layers()}
    codes = {
        decision.name: uniform_encoder(model, decision.name, layers[decision.name].channel_axis)(
            decision.weight_bits
        )
        for decision in plan.layers
    }
    # A sample that rounding damages most is the hardest.
    easy_first = some.take(np.argsort(lost, kind="stable"))
    learned = model.learned_codes(quantized, codes, easy_first, plan.refine, progress)
    return model.with_coding(dataclasses.replace(model.coding, learned=dict(learned)))
