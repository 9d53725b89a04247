"""One of several classes along an axis: KL divergence of the softmax, averaged over positions.

To second order KL(p || softmax(z + dz)) = Var_p(dz) / 2, with metric M = diag(p) - p p^T: the Fisher information of
the logits. Used to score layers since HAWQ-V2 (arXiv:1911.03852).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.readouts.role import Embedding
from lampq.core.readouts.rows import from_rows, position_weights, to_rows
from lampq.core.readouts.softmax import kl_divergence, log_softmax
from lampq.core.readouts.square_root import SquareRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """A `Role`. Equal -inf logits are a class of probability zero that does not move.

    Attributes:
        axis: Axis of the classes; all others but the samples are positions.
    """

    axis: int = -1

    def damage(self, reference: np.ndarray, output: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """KL(softmax(reference) || softmax(output)), nats per sample."""
        rows = to_rows(reference, self.axis)
        divergence = kl_divergence(log_softmax(rows), log_softmax(to_rows(output, self.axis)))
        return (divergence * position_weights(rows, mask)[..., 0]).sum(axis=-1)

    def embedding(self, centre: np.ndarray, mask: np.ndarray | None, scale: float = 1.0) -> Embedding:
        """Differences, centred under q = softmax(centre) and weighted with sqrt(q / 2)."""
        rows = to_rows(centre, self.axis)
        q, share = np.exp(log_softmax(rows)), position_weights(rows, mask)
        probability = q.astype(np.float32)
        root = np.sqrt(q * (scale * share / 2)).astype(np.float32)

        def apply(difference: np.ndarray) -> np.ndarray:
            rows = to_rows(difference, self.axis)
            mean = np.einsum("spc,spc->sp", probability, rows)
            return from_rows((rows - mean[..., None]) * root, difference.shape, self.axis)

        return Embedding(apply=apply, importance=from_rows(q * share, centre.shape, self.axis))

    def slope(self, reference: np.ndarray, centre: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """softmax(centre) - softmax(reference), by position."""
        rows = to_rows(centre, self.axis)
        gap = np.exp(log_softmax(rows)) - np.exp(log_softmax(to_rows(reference, self.axis)))
        return from_rows(gap * position_weights(rows, mask), centre.shape, self.axis)

    def signs_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The metric of C classes has rank C - 1: one sign less along the axis."""
        short = list(shape)
        short[self.axis] -= 1
        return tuple(short)

    def probe(self, output: np.ndarray, mask: np.ndarray | None, signs: np.ndarray) -> np.ndarray:
        """A square root of the metric times the signs. With two classes and one position, that is exact."""
        rows = to_rows(output, self.axis)
        root = SquareRoot(log_softmax(rows)).times(to_rows(signs, self.axis))
        return from_rows(np.sqrt(position_weights(rows, mask)) * root, output.shape, self.axis)

    def decisions(self, output: np.ndarray) -> np.ndarray:
        """The likeliest class of every position, int64, the shape of the output without its axis."""
        return np.argmax(output, axis=self.axis)
