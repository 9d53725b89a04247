"""Directions that carry most of the covariance of a drawn class, and what is left of it with the last of them.

With R = (I - p 1^T) diag(sqrt p), R R^T = diag(p) - p p^T =: M. For orthonormal columns C near the leading singular
vectors of R, the directions R C carry most of M: predictions rest on few classes. A few steps of subspace iteration
come close enough.

Where they carry half of the trace of M or more, the last is made longer by what is missing of it: nothing is left to
chance, and M is off by less than that. Elsewhere the last is R (I - C C^T) s with random signs s, C being the others,
so that E[v v^T] sums to M. Of 64 or 520 images of a CIFAR-10 ViT, of whose trace three directions carry .93, the first
scatters about half as much in what it makes of plans as the second (benchmarks/results/gradient_superposition.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_STEPS = 6
# The share of the trace from which on the directions stand for all of it.
_MOST = 0.5


def principal(log_p: np.ndarray, count: int, signs: np.ndarray) -> Iterator[np.ndarray]:
    """Directions of each sample, the trace of whose v v^T, summed, is that of M, on average over the signs.

    Args:
        log_p: Log-probabilities, float64, shape (S, C).
        count: Directions, below the number of classes.
        signs: Random signs, shape (S, C), for samples whose leading directions carry little.

    Yields:
        `count` vectors, float64, shape (S, C).
    """
    p = np.exp(log_p)
    root = np.sqrt(p)
    columns = _leading(p, root, count)
    vectors = [_times(p, root, columns[:, :, k]) for k in range(count)]
    trace = (p * (1 - p)).sum(axis=1)
    own = [np.square(vector).sum(axis=1) for vector in vectors]
    carried = np.sum(own, axis=0)
    others = columns[:, :, : count - 1]
    along = np.einsum("sck,sk->sc", others, np.einsum("sck,sc->sk", others, signs))
    chance = _times(p, root, signs - along)
    missing = np.maximum(trace - carried, 0)
    longer = np.sqrt(1 + np.divide(missing, own[-1], out=np.zeros_like(trace), where=own[-1] > 0))
    most = carried >= _MOST * trace
    yield from vectors[:-1]
    yield np.where(most[:, None], vectors[-1] * longer[:, None], chance)


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
