"""Damage on samples that codes were not fitted to: the calibration data in halves, each judged by codes for the other.

Codes chosen for the inputs of some samples do less to these than to others, and with few samples several times less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.measuring.correction import with_plan_coding
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, damage
from lampq.core.measuring.setting import simulated
from lampq.core.quantizing.coding import Coding
from lampq.core.values.batch import Batch
from lampq.core.values.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Half:
    """Some samples, and a model whose codes have not seen them.

    Attributes:
        model: The float model, its coding fitted to `fitted`.
        fitted: The other samples.
        judged: What the float model makes of the samples.
    """

    model: Model
    fitted: Batch
    judged: Reference


def halves(model: Model, reference: Reference) -> tuple[Half, ...]:
    """Every second sample, and the others; none where no codes are fitted, or there are no two samples to part.

    Args:
        model: The float model, its coding fitted to all samples or to none.
        reference: What it makes of all samples.
    """
    samples = reference.inputs.samples
    if model.coding.moments is None or samples < 2:
        return ()
    parts = [np.arange(start, samples, 2) for start in range(2)]
    block = model.coding.block
    bare = model.with_coding(Coding(block=block))
    return tuple(
        Half(
            model=with_rounding(bare, model.coding.rounding, block, reference.inputs.take(fitted)),
            fitted=reference.inputs.take(fitted),
            judged=reference.take(judged),
        )
        for fitted, judged in zip(parts, parts[::-1], strict=True)
    )


def held_out_damage(parts: Sequence[Half], quantized: Callable[[Half], Model]) -> float:
    """Mean damage of all samples, each with codes that were fitted to others, nats.

    Args:
        parts: The halves, of which there must be some.
        quantized: The quantized model that has not seen the samples of a half.
    """
    counts = [half.judged.inputs.samples for half in parts]
    return float(np.average([damage(quantized(half), half.judged) for half in parts], weights=counts))


def held_out_plan(parts: Sequence[Half], plan: Plan) -> float:
    """`held_out_damage` of a plan in its own rounding, under the model's names of layers."""
    return held_out_damage(
        parts, lambda half: simulated(with_plan_coding(half.model, plan, half.fitted), plan)
    )
