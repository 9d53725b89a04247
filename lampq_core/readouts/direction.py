"""Vectors whose length means nothing (embeddings that are compared by their angle): values after normalising.

With u = z / |z| along the axis, a difference dz turns u by J dz, J = (I - u u^T) / |z|; damage, slope, metric and
probes are those of the values u, carried through J.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lampq.core.readouts.role import Embedding
from lampq.core.readouts.rows import from_rows, to_rows
from lampq.core.readouts.values import Values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Direction:
    """A `Role`. A vector of length zero has no direction: it does not turn.

    Attributes:
        axis: Axis along which length is measured; all others but the samples are positions.
        spread: Sigma of every coordinate of the unit vectors, > 0, float64, shape (C,) or (1,).
    """

    axis: int = -1
    spread: np.ndarray

    def damage(self, reference: np.ndarray, output: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Half the mean squared difference of the unit vectors in units of the spread, nats per sample."""
        return self._units.damage(unit(reference, self.axis), unit(output, self.axis), mask)

    def embedding(self, centre: np.ndarray, mask: np.ndarray | None, scale: float = 1.0) -> Embedding:
        """Differences of the unit vectors, to first order, over the spread."""
        units, inverse = _normalised(centre, self.axis)
        inner = self._units.embedding(units, mask, scale)
        units, inverse = units.astype(np.float32), inverse.astype(np.float32)

        def apply(difference: np.ndarray) -> np.ndarray:
            turned = _turned(to_rows(difference, self.axis), units, inverse)
            return from_rows(inner.apply(turned), difference.shape, self.axis)

        return Embedding(apply=apply, importance=from_rows(inner.importance, centre.shape, self.axis))

    def slope(self, reference: np.ndarray, centre: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """The slope of the values u, through J."""
        units, inverse = _normalised(centre, self.axis)
        slope = self._units.slope(unit(reference, self.axis), units, mask)
        return from_rows(_turned(slope, units, inverse), centre.shape, self.axis)

    def signs_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A sign for every entry."""
        return shape

    def probe(self, output: np.ndarray, mask: np.ndarray | None, signs: np.ndarray) -> np.ndarray:
        """A probe of the values u, through J."""
        units, inverse = _normalised(output, self.axis)
        probe = self._units.probe(units, mask, to_rows(signs, self.axis))
        return from_rows(_turned(probe, units, inverse), output.shape, self.axis)

    def decisions(self, output: np.ndarray) -> None:
        """A direction decides nothing."""

    @property
    def _units(self) -> Values:
        return Values(axis=-1, spread=self.spread)


def unit(array: np.ndarray, axis: int) -> np.ndarray:
    """Rows of unit length (or zero), float64, shape (S, P, C)."""
    return _normalised(array, axis)[0]


def _normalised(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unit length, and one over the length of each, 0 for 0; float64, (S, P, C) and (S, P, 1)."""
    rows = to_rows(array, axis).astype(np.float64)
    length = np.sqrt(np.square(rows).sum(axis=-1, keepdims=True))
    inverse = np.where(length > 0, 1 / np.where(length > 0, length, 1), 0)
    return rows * inverse, inverse


def _turned(rows: np.ndarray, units: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """J times rows; J is symmetric."""
    along = np.einsum("spc,spc->sp", rows, units)[..., None]
    return (rows - along * units) * inverse
