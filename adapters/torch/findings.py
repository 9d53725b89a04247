"""What a forward pass tells of a module, found once: where it uses its weights, and how far one tape serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lampq.adapters.torch.agreement import arrays, disagreement
from lampq.adapters.torch.folding import scales
from lampq.adapters.torch.forward_pass import ForwardPass
from lampq.adapters.torch.fronts import Front
from lampq.adapters.torch.layout import Layout, measure_layouts
from lampq.adapters.torch.survey import Survey, places_of, survey
from lampq.adapters.torch.tape import Named, Tape
from lampq.core.values.errors import AdapterError

# Two runs on the same samples may differ by rounding, no more.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """What is known of a module once it has been run on two batches.

    Attributes:
        survey: Where it multiplies by its weights.
        layouts: (parameter, n) -> how samples lie in the rows of its n-th use, None where they mix.
        places: Parameter -> kind, where its place in the forward pass tells: first convolution, last product.
        foldable: Parameter -> scale of the normalization behind it, where exporters can fold one into it.
        fronts: Tensors that stand for outputs that jump.
        obstacle: The operator that makes each batch take its own course; None where one tape serves them all.
    """

    survey: Survey
    layouts: Mapping[tuple[str, int], Layout | None]
    places: Mapping[str, str]
    foldable: Mapping[str, np.ndarray]
    fronts: tuple[Front, ...]
    obstacle: str | None

    @property
    def samples_mix(self) -> bool:
        """Whether a layer's rows of one sample depend on others: then only single samples tell them apart."""
        return any(
            self.layouts[name, i] is None for name, uses in self.survey.uses.items() for i in range(len(uses))
        )

    @classmethod
    def of(cls, forward: ForwardPass, one: Named, other: Named, *, name: str, embeddings: bool) -> Findings:
        """Record a module on a batch, and run it on another.

        Args:
            forward: The module.
            one: Inputs to record.
            other: More samples of the same shapes.
            name: What to call the module in messages.
            embeddings: Whether embedding tables count as quantizable weights.

        Raises:
            AdapterError: The forward pass is random.
        """
        weights = forward.weights
        with torch.no_grad():
            tape, recorded, ahead = forward.record(weights, one, grad=False)
            _refuse_random(forward, tape, one, recorded, name)
            surveyed = survey(tape, weights, embeddings=embeddings)
            uses = [use for group in surveyed.uses.values() for use in group]
            layouts, replayed = measure_layouts(tape, uses, weights, other, one)
            obstacle = _obstacle(tape)
            if obstacle is None and not _same(forward(weights, other), replayed):
                obstacle = "code outside torch"
        by_operation = dict(zip((use.operation for use in uses), layouts, strict=True))
        return cls(
            survey=surveyed,
            layouts={
                (parameter, i): by_operation[use.operation]
                for parameter, group in surveyed.uses.items()
                for i, use in enumerate(group)
            },
            places=places_of(tape, uses),
            foldable=scales(tape, surveyed.uses, weights),
            fronts=ahead,
            obstacle=obstacle,
        )


def _refuse_random(forward: ForwardPass, tape: Tape, inputs: Named, recorded: Named, name: str) -> None:
    if tape.random is not None:
        raise AdapterError(
            f"{name} is random: {tape.random} draws random numbers; switch it off, for example with eval()"
        )
    if not _same(forward(forward.weights, inputs), recorded):
        raise AdapterError(f"{name} is random: the same input twice gives two results; remove what is random")


def _obstacle(tape: Tape) -> str | None:
    if tape.obstacle is None and not tape.cuts()[0]:
        return "an operator that overwrites its input"
    return tape.obstacle


def _same(expected: Named, actual: Named) -> bool:
    """Whether outputs agree to rounding."""
    return disagreement(expected, arrays(actual))[1] <= _TOLERANCE
