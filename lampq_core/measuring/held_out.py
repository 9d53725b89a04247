"""Damage on samples that codes were not fitted to: the calibration data in parts, each judged by codes for the others.

Codes chosen for the inputs of some samples do less to these than to others, and with few samples several times less.
Codes for half of few samples are also worse than those for all of them, corrected ones most: what is to tell these from
others is judged in quarters then. Of many samples some are judged: these tell plans apart, and all would take time and
tell little more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, damage, damages, evenly
from lampq.core.measuring.setting import simulated
from lampq.core.quantizing.coding import Coding
from lampq.core.values.batch import Batch
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet

ENOUGH = 256
"""From so many samples on, codes for half of them are about as good as those for all.

So many are enough to judge by, too. On a CIFAR-10 ViT their damage is that of all within 11 %, and the difference of
two plans, whose damage goes up and down with the same samples, is nearer.
"""
# Entries of moments of a model whose correction takes minutes: a ViT-B has twice as many, a ViT-S half.
_LARGE = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some samples, and a model whose codes have not seen them.

    Attributes:
        model: The float model, its coding fitted to `fitted`.
        fitted: The other samples.
        judged: What the float model makes of the samples.
    """

    model: Model
    fitted: Batch
    judged: Reference


def halves(model: Model, reference: Reference) -> tuple[Part, ...]:
    """Every second sample, and the others; none where no codes are fitted, or there are no two samples to part.

    Where half of the samples are enough to judge by, codes are fitted to one half alone, and some of the other judged.

    Args:
        model: The float model, its coding fitted to all samples or to none.
        reference: What it makes of all samples.
    """
    return _parts(model, reference, 2)


def quarters(model: Model, reference: Reference) -> tuple[Part, ...]:
    """Every fourth sample, and the others, four times; `halves` where there are many samples, or fewer than four.

    Of a large model one fourth is judged: the others take minutes each, for every plan.
    """
    if not in_quarters(reference):
        return halves(model, reference)
    return _parts(model, reference, 4, most=1 if _moment_entries(model) > _LARGE else 4)


def in_quarters(reference: Reference) -> bool:
    """Whether there are few samples, and no fewer than four."""
    return 4 <= reference.inputs.samples < ENOUGH


def _moment_entries(model: Model) -> int:
    """Entries of the moments of the inputs of all layers."""
    return sum((layer.size // layer.shape[layer.channel_axis]) ** 2 for layer in model.layers())


def _parts(model: Model, reference: Reference, count: int, most: int | None = None) -> tuple[Part, ...]:
    samples = np.arange(reference.inputs.samples)
    if model.coding.moments is None or len(samples) < count:
        return ()
    block = model.coding.block
    bare = model.with_coding(Coding(block=block))
    parts = []
    for number in range(most or count):
        judged = samples[number::count]
        inputs = reference.inputs.take(samples[samples % count != number])
        fitted = with_rounding(bare, model.coding.rounding, block, inputs)
        enough = judged[evenly(len(judged), ENOUGH)]
        parts.append(Part(model=fitted, fitted=inputs, judged=reference.take(enough)))
        if len(judged) >= ENOUGH:
            break
    return tuple(parts)


def held_out_damage(parts: Sequence[Part], quantized: Callable[[Part], Model]) -> float:
    """Mean damage of samples, each with codes that were fitted to others, nats.

    Args:
        parts: The parts, of which there must be some.
        quantized: The quantized model that has not seen the samples of a part.
    """
    counts = [part.judged.inputs.samples for part in parts]
    return float(np.average([damage(quantized(part), part.judged) for part in parts], weights=counts))


def held_out_plan(parts: Sequence[Part], plan: Plan) -> float:
    """`held_out_damage` of a plan in its own rounding, under the model's names of layers."""
    return held_out_damage(parts, lambda part: _in_its_rounding(part, plan))


def held_out_samples(parts: Sequence[Part], plan: Plan, progress: Progress = quiet) -> np.ndarray:
    """What a plan in its own rounding does to each sample, part by part, nats, shape (S,)."""
    lost = []
    for number, part in enumerate(parts):

        def report(what: str, done: int, total: int, before: int = number) -> None:
            progress("judging codes on samples left out", before * total + done, len(parts) * total)

        lost.append(damages(_in_its_rounding(part, plan, report), part.judged))
    return np.concatenate(lost)


def _in_its_rounding(part: Part, plan: Plan, progress: Progress = quiet) -> Model:
    return simulated(with_plan_coding(part.model, plan, part.fitted, progress), plan)
