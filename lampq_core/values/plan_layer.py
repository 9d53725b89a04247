"""The decision for one layer of a model: its widths, what they cost, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.errors import PlanError
from lampq.core.values.factors import takes_rank
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.fitted import Fitted
from lampq.core.values.layer import Layer
from lampq.core.values.option import Option


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLayer:
    """The decision for one layer.

    Attributes:
        name: Layer name in the model the plan was made from.
        kind: Layer kind.
        fingerprint: Identity of its weight, so that the plan applies to other files of the model.
        shape: Shape of the stored weight.
        size: Number of weights.
        weight_bits: Width of the weights.
        activation_bits: Width of the input, or None for float.
        activation_range: Smallest and largest input seen in calibration, or None.
        quantizer: How the input is rounded, where that is not told by its range or by tokens alone.
        payload_bytes: Bytes of codes and scales, those of the factors included.
        rank: Rank of the factors that give back what rounding takes (`core.quantizing.low_rank`); 0: there are none.
        folded: Identity of the weight with the scale of the normalization behind it folded in, or None.
        predicted_kl: Damage predicted for this layer alone, nats; None without data.
        why: One sentence.
    """

    name: str
    kind: str
    fingerprint: Fingerprint
    shape: tuple[int, ...]
    size: int
    weight_bits: int
    payload_bytes: int
    activation_bits: int | None = None
    activation_range: tuple[float, float] | None = None
    quantizer: Fitted | None = None
    rank: int = 0
    folded: Fingerprint | None = None
    predicted_kl: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if self.size <= 0 or self.payload_bytes < 0 or self.size != int(np.prod(self.shape, dtype=np.int64)):
            raise PlanError(f"layer {self.name}: size {self.size} or payload {self.payload_bytes} cannot be")
        if not takes_rank(self.shape, self.option.rank):
            raise PlanError(
                f"layer {self.name}: factors of rank {self.rank} for a weight of shape {self.shape}; matrices have "
                f"them, from 1 to their smaller side"
            )
        if self.fingerprint.count != self.size:
            raise PlanError(f"layer {self.name}: the fingerprint is of {self.fingerprint.count} weights")
        if self.quantizer is not None and self.quantizer.bits != self.activation_bits:
            raise PlanError(
                f"layer {self.name}: a quantizer of {self.quantizer.bits} bits for {self.activation_bits} activation "
                f"bits"
            )
        if self.activation_range is not None:
            low, high = self.activation_range
            if not (np.isfinite(low) and np.isfinite(high) and low <= high):
                raise PlanError(f"layer {self.name}: activation range {self.activation_range} cannot be")

    @property
    def option(self) -> Option:
        """What the layer gets."""
        return Option(weight_bits=self.weight_bits, activation_bits=self.activation_bits, rank=self.rank)

    @property
    def widths(self) -> tuple[int, int | None]:
        """Of the weights and the input; None where it stays float."""
        return self.weight_bits, self.activation_bits

    @classmethod
    def of(cls, layer: Layer | PlanLayer, **decision: Any) -> PlanLayer:
        """The decision for a layer of a model, or another one than it had.

        Args:
            layer: What it is called, and its weight.
            **decision: The other attributes: `weight_bits`, `payload_bytes`, ...

        Raises:
            PlanError: It cannot be.
        """
        return cls(
            name=layer.name,
            kind=layer.kind,
            fingerprint=layer.fingerprint,
            folded=layer.folded,
            shape=layer.shape,
            size=layer.size,
            **decision,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlanLayer:
        """Back from a plan file; fields of later versions are left out.

        Raises:
            PlanError: It cannot be.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["fingerprint"] = Fingerprint.from_text(str(values["fingerprint"]))
        if values.get("folded") is not None:
            values["folded"] = Fingerprint.from_text(str(values["folded"]))
        if values.get("quantizer") is not None:
            values["quantizer"] = Fitted.from_json(values["quantizer"])
        values["shape"] = tuple(int(d) for d in values["shape"])
        values.setdefault("rank", 0)
        for key in ("size", "weight_bits", "payload_bytes", "rank"):
            if isinstance(values[key], bool) or int(values[key]) != values[key]:
                raise PlanError(f"layer {values.get('name')}: {key} is {values[key]!r}, expected an integer")
            values[key] = int(values[key])
        if values.get("activation_range") is not None:
            low, high = values["activation_range"]
            values["activation_range"] = (float(low), float(high))
        predicted = values.get("predicted_kl")
        values["predicted_kl"] = None if predicted is None else float(predicted)
        return cls(**values)
