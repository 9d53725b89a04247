"""A square root of the covariance of a drawn class, diag(p) - p p^T."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_TINY = np.finfo(np.float64).tiny


class SquareRoot:
    """R with R R^T = diag(p) - p p^T, shape (..., C, C - 1), never formed.

    The Cholesky factor of a multinomial covariance in closed form: with tails t_j = p_j + p_{j+1} + ...,
    its column j is sqrt(p_j t_{j+1} / t_j) at j and -p_i sqrt(p_j / (t_j t_{j+1})) below. Classes are taken
    from the rarest to the likeliest, which keeps the tails away from zero.

    Source: Tanabe and Sagae (1992), doi:10.1111/j.2517-6161.1992.tb01875.x.

    Args:
        log_p: Log-probabilities, shape (..., C), float64.
    """

    def __init__(self, log_p: np.ndarray) -> None:
        self._order = np.argsort(log_p, axis=-1, kind="stable")
        self._p = np.exp(np.take_along_axis(log_p, self._order, axis=-1))
        tails = np.flip(np.cumsum(np.flip(self._p, -1), axis=-1), -1)
        here, after = tails[..., :-1], tails[..., 1:]
        self._at = np.sqrt(self._p[..., :-1] * after / np.maximum(here, _TINY))
        self._below = np.sqrt(self._p[..., :-1] / np.maximum(here, _TINY) / np.maximum(after, _TINY))

    def columns(self) -> Iterator[np.ndarray]:
        """The C - 1 columns, each of shape (..., C)."""
        for j in range(self._at.shape[-1]):
            column = -self._p * self._below[..., j, None]
            column[..., :j] = 0
            column[..., j] = self._at[..., j]
            yield self._unsorted(column)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """R times a vector of shape (..., C - 1), shape (..., C)."""
        zero = np.zeros((*vector.shape[:-1], 1))
        before = np.concatenate((zero, np.cumsum(self._below * vector, axis=-1)), axis=-1)
        return self._unsorted(np.concatenate((self._at * vector, zero), axis=-1) - self._p * before)

    def _unsorted(self, values: np.ndarray) -> np.ndarray:
        unsorted = np.empty_like(values)
        np.put_along_axis(unsorted, self._order, values, axis=-1)
        return unsorted
