"""The choices that LampQ's publication leaves open or makes, each of them selectable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lampq.core.values.errors import RecordError
from lampq.core.values.gaussian_error import error_table

TYPE_SCALES = ("kl", "accuracy")
MEASURED = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How mode `lampq` scores layers and updates plans.

    Source: Kim et al., AAAI 2026, arXiv:2511.10004. Defaults are the published values where there are any; damage
    is counted as KL instead of lost accuracy, and errors of neighbouring widths are measured instead of predicted,
    because both are cheap here and say more.

    Attributes:
        type_scale: What the damage of a type's probes is: `kl`, nats, or `accuracy`, the fraction of samples whose
            predicted class changes.
        probes: Layers per type that are quantized to fix its scale, spread over depth, >= 1.
        beta: Width that they are quantized to; the nearest profiled one is taken.
        gamma: Shrinkage of damage per bit, > 1.
        table: How the update knows errors of neighbouring widths: `measured`, or predicted from the current one by
            `paper`, `mse` or `minmax(r)` (`core.values.gaussian_error.error_table`).
        most_swaps: The most swaps of the update; 0 leaves it out.
        weighted: Whether the update weighs the relative errors by the sensitivity of their layers.
    """

    type_scale: str = "kl"
    probes: int = 3
    beta: int = 2
    gamma: float = 4.0
    table: str = MEASURED
    most_swaps: int = 50
    weighted: bool = False

    def __post_init__(self) -> None:
        if self.type_scale not in TYPE_SCALES:
            raise RecordError(f"type scale {self.type_scale!r} is none of {', '.join(TYPE_SCALES)}")
        if self.probes < 1 or self.most_swaps < 0:
            raise RecordError(
                f"{self.probes} probe layers, {self.most_swaps} swaps: at least 1 probe and 0 swaps"
            )
        if not 1 <= self.beta <= 8:
            raise RecordError(f"beta is {self.beta} bits; choose 1 to 8")
        if not self.gamma > 1:
            raise RecordError(f"gamma is {self.gamma}; damage shrinks with the width only when it exceeds 1")
        if self.table != MEASURED:
            error_table(self.table)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_json`; what is missing is as published, other keys are passed over.

        Raises:
            RecordError: A choice cannot be.
        """
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        counts = {"probes", "beta", "most_swaps"} & set(values)
        return cls(**values | {name: int(values[name]) for name in counts})


PUBLISHED = Recipe()
"""The defaults."""
