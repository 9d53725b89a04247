"""What a role has to know of its output. Each role is one file; nothing inherits this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding:
    """A linear map from differences of an output to rows whose squares are its damage to second order.

    Attributes:
        apply: From a difference of shape (S, ...), float32, to rows of the same shape, float32: per sample, the
            squares of the rows add up to scale * dz^T M dz / 2.
        importance: How much each entry may matter, shape (S, ...), >= 0, sums to about one per sample: where there
            is no room for all rows, those of most importance stay as they are and the rest are sketched.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    importance: np.ndarray


class Role(Protocol):
    """Damage of one output and its second-order metric M.

    All arrays are canonical: `classes` and `probabilities` get logits, whatever the model's file ends in
    (`canonical.py`), samples first, floating point. `mask` has shape (S, positions), or is None: all positions count.
    """

    def damage(self, reference: np.ndarray, output: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Nats per sample, float64, shape (S,), >= 0."""

    def embedding(self, centre: np.ndarray, mask: np.ndarray | None, scale: float = 1.0) -> Embedding:
        """The metric around a centre, times `scale`."""

    def slope(self, reference: np.ndarray, centre: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Gradient of the damage with respect to the output, at `centre`, float64, shape (S, ...)."""

    def signs_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the signs that `probe` takes for an output of this shape."""

    def probe(self, output: np.ndarray, mask: np.ndarray | None, signs: np.ndarray) -> np.ndarray:
        """A direction v per sample with E[v v^T] = M, float64, in the shape of the output.

        Args:
            output: The float output.
            mask: See above.
            signs: Independent random signs, float64, in the shape that `signs_shape` gives.
        """

    def decisions(self, output: np.ndarray) -> np.ndarray | None:
        """What a user would read off, integers, samples first (chosen classes, yes or no); None for numbers."""
