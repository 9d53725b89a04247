"""Directions that carry most of the covariance of a drawn class, and one random direction for all the rest.

With R = (I - p 1^T) diag(sqrt p), R R^T = diag(p) - p p^T =: M. For orthonormal columns C, the directions R C and, with
random signs s, R (I - C C^T) s have E[v v^T] summing to M whatever C is; the closer C is to the leading singular
vectors of R, the less is left to chance. A few steps of subspace iteration come close enough: predictions rest on few
classes, and two directions carry most of M.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_STEPS = 6


def principal(log_p: np.ndarray, rank: int, signs: np.ndarray) -> Iterator[np.ndarray]:
    """The `rank` leading directions and a random one.

    Args:
        log_p: Log-probabilities, float64, shape (S, C).
        rank: Below the number of classes.
        signs: Random signs, shape (S, C).

    Yields:
        `rank` + 1 vectors, float64, shape (S, C); v v^T summed over them is M on average over the signs.
    """
    p = np.exp(log_p)
    root = np.sqrt(p)
    columns = _leading(p, root, rank)
    yield from (_times(p, root, columns[:, :, k]) for k in range(rank))
    carried = np.einsum("sck,sk->sc", columns, np.einsum("sck,sc->sk", columns, signs))
    yield _times(p, root, signs - carried)


def _leading(p: np.ndarray, root: np.ndarray, rank: int) -> np.ndarray:
    """Orthonormal columns near the leading right singular vectors of R, shape (S, C, rank)."""
    # The likeliest class alone is nearly the null vector, sqrt(p).
    begin = np.argsort(-p, axis=1, kind="stable")[:, 1 : rank + 1]
    columns = np.zeros((*p.shape, rank))
    np.put_along_axis(columns, begin[:, None], 1.0, axis=1)
    for _ in range(_STEPS):
        images = np.stack([_times(p, root, columns[:, :, k]) for k in range(rank)], axis=2)
        back = root[:, :, None] * (images - np.einsum("sc,sck->sk", p, images)[:, None])
        columns = np.linalg.qr(back)[0]
    return columns


def _times(p: np.ndarray, root: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """R times a vector, shape (S, C)."""
    weighted = root * vector
    return weighted - p * weighted.sum(axis=1, keepdims=True)
