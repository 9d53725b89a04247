"""The choices of the generator."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from lampq.core.values.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisRecipe:
    """How samples are made from a model.

    Attributes:
        candidates: Samples that are drawn for each one that is taken.
        steps: Gradient steps on those that are taken; 0 leaves them as they were drawn.
        rate: Size of the first step, in units of the parameters; steps shrink to nothing.
        smoothness: Power of the frequency by which fine detail of images moves less than coarse.
        statistics: Weight of the normalizations' statistics.
        confidence: Weight of the classes' confidence; None: a little where there are no normalizations. Beside them it
            pulls samples to where no data are.
        entropy: Weight of the entropy of patch similarities; None: likewise.
        variation: Weight of the total variation of images.
        batch: Samples that are refined together.
        shapes: Name and shape of one sample of inputs that take any length; an empty name is the only input.
    """

    candidates: int = 4
    steps: int = 10
    rate: float = 0.06
    smoothness: float = 0.25
    statistics: float = 1.0
    confidence: float | None = None
    entropy: float | None = None
    variation: float = 0.0
    batch: int = 64
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        whole = {"candidates": self.candidates, "batch": self.batch}
        for name, value in whole.items():
            if value < 1:
                raise RecordError(f"synthetic data: {name} {value}; at least 1 is needed")
        numbers = {field.name for field in dataclasses.fields(self)} - {"shapes"}
        for name in sorted(numbers):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise RecordError(f"synthetic data: {name} {value}; give a number from 0 on")

    def key(self, *parts: Any) -> str:
        """Digest of the recipe and whatever else decides what is made."""
        text = json.dumps([dataclasses.asdict(self), *parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
