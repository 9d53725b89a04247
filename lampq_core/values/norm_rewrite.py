"""An exact rewrite of a normalization and the layers behind it, as plans and profiles hold it.

A normalization gives y = gamma n + beta, layers behind it W y + b. With a ratio r and a shift z per channel,

    y' = (gamma / r) n + (beta - z) / r,    W' = W diag(r),    b' = b + W z

compute the same in float, and one grid for the whole tensor y' is one for every channel of y.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import row
from lampq.core.values.messages import described


@dataclass(frozen=True, slots=True, kw_only=True)
class NormRewrite:
    """What the channels behind a normalization are divided by, and what is taken off them before. C channels.

    Attributes:
        norm: The normalization, by the name of its module.
        kind: What chose the numbers (`core.treatments.rewrites`).
        ratio: C positive numbers.
        shift: C numbers.
    """

    norm: str
    kind: str
    ratio: tuple[float, ...]
    shift: tuple[float, ...]

    def __post_init__(self) -> None:
        ratio, shift = np.array(self.ratio), np.array(self.shift)
        if ratio.shape != shift.shape or not ratio.size or not (ratio > 0).all():
            raise RecordError(
                f"rewrite of {self.norm}: it needs a positive ratio and a shift for every channel"
            )
        if not (np.isfinite(ratio).all() and np.isfinite(shift).all()):
            raise RecordError(f"rewrite of {self.norm}: its numbers are not finite")

    @classmethod
    def of(cls, norm: str, kind: str, ratio: np.ndarray, shift: np.ndarray) -> NormRewrite:
        """A rewrite in float32 numbers, so that its file says exactly what was measured."""
        return cls(norm=norm, kind=kind, ratio=row(ratio), shift=row(shift))

    def of_norm(self, gamma: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale and offset of the normalization, shape (C,) each."""
        ratio, shift = np.array(self.ratio), np.array(self.shift)
        return gamma / ratio, (beta - shift) / ratio

    def of_layer(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight (outputs, C) and bias (outputs,) of a layer behind it."""
        return weight * np.array(self.ratio), bias + weight @ np.array(self.shift)

    def of_values(self, values: np.ndarray) -> np.ndarray:
        """What the layers read then, where they read `values`, channels last."""
        return (values - np.array(self.shift)) / np.array(self.ratio)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"norm": self.norm, "kind": self.kind, "ratio": list(self.ratio), "shift": list(self.shift)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NormRewrite:
        """The inverse of `to_json`.

        Raises:
            RecordError: A field is missing or impossible.
        """
        try:
            ratio, shift = (tuple(map(float, data[name])) for name in ("ratio", "shift"))
            return cls(norm=str(data["norm"]), kind=str(data["kind"]), ratio=ratio, shift=shift)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise RecordError(f"malformed rewrite ({described(err)})") from err
