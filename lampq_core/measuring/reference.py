"""What the float model gives for some inputs: what every damage is measured from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.head import Head, judged_of

# A sweep holds about four copies of the outputs of a slice.
_SLICE_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """Inputs, what the float model makes of them, and what that means.

    Attributes:
        inputs: S samples.
        readout: Roles of the outputs, fitted to all samples of the data set.
        outputs: The judged outputs of the float model, with the masks that roles need.
    """

    inputs: Batch
    readout: Readout
    outputs: Batch

    def damage(self, outputs: Batch) -> float:
        """Mean damage of other outputs of the same inputs, nats."""
        return float(self.readout.damage(self.outputs, outputs).mean())

    def checked(self, outputs: Batch, whose: str) -> Batch:
        """The outputs, if finite.

        Raises:
            RecordError: They are not; says whose, which output and which sample.
        """
        return self.readout.check(outputs, whose)

    def slices(self) -> tuple[tuple[float, Reference], ...]:
        """Parts whose outputs take little memory, each with its share of the samples.

        What is averaged over samples (damage, interactions) is the same, weighted, over the parts; only a few copies
        of a part's outputs are ever in memory, however many numbers a model gives for a sample.
        """
        total = sum(array.nbytes for group in self.outputs.groups for array in group.values())
        samples = self.inputs.samples
        size = max(1, samples * _SLICE_BYTES // max(total, 1))
        if size >= samples:
            return ((1.0, self),)
        starts = range(0, samples, size)
        parts = [self.take(range(start, min(start + size, samples))) for start in starts]
        return tuple((part.inputs.samples / samples, part) for part in parts)

    def take(self, numbers: Sequence[int] | np.ndarray) -> Reference:
        """Some of the samples."""
        return dataclasses.replace(self, inputs=self.inputs.take(numbers), outputs=self.outputs.take(numbers))


def damage(quantized: Model, reference: Reference) -> float:
    """Mean of `damages`, nats."""
    return float(damages(quantized, reference).mean())


def damages(quantized: Model, reference: Reference) -> np.ndarray:
    """Damage of each sample, nats, shape (S,); of large outputs a few samples at a time."""
    return np.concatenate(
        [
            part.readout.damage(part.outputs, part.checked(quantized.run(part.inputs), "the quantized model"))
            for _, part in reference.slices()
        ]
    )


def input_batch(model: Model, batch: BatchLike) -> Batch:
    """Inputs by name, whatever form they come in: a lone array is the model's only input."""
    specs = [spec for spec in model.input_specs if not spec.optional]
    return Batch.of(batch, name=specs[0].name if len(specs) == 1 else "x")


def with_examples(model: Model, batch: BatchLike) -> Model:
    """The model as the data make it known, where its format leaves shapes and inputs to them (PyTorch modules).

    Raises:
        AdapterError: It does not take them.
    """
    learn = getattr(model, "with_examples", None)
    return model if learn is None else cast("Model", learn(batch))


def measure_reference(model: Model, batch: BatchLike) -> Reference:
    """Run the float model.

    Args:
        model: The float model.
        batch: S inputs.

    Raises:
        AdapterError: None of its outputs is judged.
        RecordError: An output is not finite.
    """
    inputs = input_batch(model, batch)
    judged_heads(model)
    return judged(model, inputs, model.run(inputs), "the float model")


def evenly(samples: int, most: int) -> np.ndarray:
    """Numbers of some samples, at most so many, spread evenly over all, int64."""
    return np.linspace(0, samples - 1, min(most, samples)).astype(np.int64)


def few_samples(model: Model, batch: BatchLike, most: int) -> Reference:
    """What the float model makes of some samples of one shape, evenly over all."""
    inputs = input_batch(model, batch)
    some = inputs.take(evenly(inputs.samples, most))
    return measure_reference(model, some if len(some.groups) == 1 else some.take(range(some.sizes[0])))


def judged(model: Model, inputs: Batch, outputs: Batch, whose: str) -> Reference:
    """Outputs that are at hand already as what others are measured from.

    Args:
        model: What gave them.
        inputs: S inputs.
        outputs: The model's judged outputs of them.
        whose: What to call the model in messages.

    Raises:
        AdapterError: None of its outputs is judged.
        RecordError: An output is not finite.
    """
    readout = Readout.fit(judged_heads(model), outputs, inputs)
    return Reference(
        inputs=inputs, readout=readout, outputs=readout.reference(readout.check(outputs, whose), inputs)
    )


def judged_heads(model: Model) -> tuple[Head, ...]:
    """The heads of a model that count.

    Raises:
        AdapterError: There is none.
    """
    return judged_of(model.heads, model.path.name)
