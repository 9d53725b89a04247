"""Independent yes-or-no answers: KL divergence of Bernoulli variables, summed along an axis.

The entries along the axis (labels of a sample, classes of an anchor) are independent, so their divergences add up;
all other axes are positions (anchors, pixels) and averaged, as they are for classes. Damage, slope, metric and probes
all keep to that. The metric is diagonal: p (1 - p).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.readouts.role import Embedding
from lampq.core.readouts.rows import from_rows, position_weights, to_rows

# Larger logits, infinite ones too, count as this: an answer no arithmetic can tell from sure.
_SURE = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Probabilities:
    """A `Role` of logits. Equal infinite logits are sure answers that do not move.

    Attributes:
        axis: Axis whose divergences are summed; all others but the samples are positions.
    """

    axis: int = -1

    def damage(self, reference: np.ndarray, output: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """KL between sigmoid(reference) and sigmoid(output), nats per sample."""
        rows = to_rows(reference, self.axis)
        divergence = _divergence(rows, to_rows(output, self.axis)).sum(axis=-1)
        return (divergence * position_weights(rows, mask)[..., 0]).sum(axis=-1)

    def embedding(self, centre: np.ndarray, mask: np.ndarray | None, scale: float = 1.0) -> Embedding:
        """Differences times sqrt(q (1 - q) / 2), q = sigmoid(centre)."""
        rows = to_rows(centre, self.axis)
        metric = _variance(rows) * position_weights(rows, mask)
        root = from_rows(np.sqrt(metric * (scale / 2)).astype(np.float32), centre.shape, self.axis)
        total = np.maximum(metric.sum(axis=(1, 2), keepdims=True), np.finfo(np.float64).tiny)
        return Embedding(
            apply=lambda difference: difference * root,
            importance=from_rows(metric / total, centre.shape, self.axis),
        )

    def slope(self, reference: np.ndarray, centre: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """sigmoid(centre) - sigmoid(reference), by position."""
        rows = to_rows(centre, self.axis)
        gap = sigmoid(rows) - sigmoid(to_rows(reference, self.axis))
        return from_rows(gap * position_weights(rows, mask), centre.shape, self.axis)

    def signs_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A sign for every entry."""
        return shape

    def probe(self, output: np.ndarray, mask: np.ndarray | None, signs: np.ndarray) -> np.ndarray:
        """The root of the metric times the signs."""
        rows = to_rows(output, self.axis)
        root = np.sqrt(_variance(rows) * position_weights(rows, mask))
        return from_rows(root * to_rows(signs, self.axis), output.shape, self.axis)

    def decisions(self, output: np.ndarray) -> np.ndarray:
        """Yes (1) where the logit is above zero, int8, in the shape of the output."""
        return (output > 0).astype(np.int8)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), float64, without overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1 + small)


def _variance(logits: np.ndarray) -> np.ndarray:
    # Not p (1 - p): that loses what 1 - p has left where p is near one.
    return sigmoid(logits) * sigmoid(-logits)


def _divergence(reference: np.ndarray, output: np.ndarray) -> np.ndarray:
    """KL of every entry, float64, >= 0.

    Turned about so that the reference says no, p <= 1/2: then softplus(z) - softplus(r) - p (z - r) is made of small
    numbers, and keeps its digits.
    """
    reference = np.clip(reference, -_SURE, _SURE, dtype=np.float64)
    output = np.clip(output, -_SURE, _SURE, dtype=np.float64)
    output = np.where(reference > 0, -output, output)
    reference = -np.abs(reference)
    odds = np.exp(reference)
    softplus = np.maximum(output, 0) + np.log1p(np.exp(-np.abs(output)))
    divergence = softplus - np.log1p(odds) - odds / (1 + odds) * (output - reference)
    # The clamp only removes rounding below zero where both agree.
    return np.maximum(divergence, 0.0)
