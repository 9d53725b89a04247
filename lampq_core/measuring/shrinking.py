"""Interactions that a few samples tell badly, lessened by their own sampling error."""

from __future__ import annotations

import numpy as np


def shrunk(gram: np.ndarray, square: np.ndarray, samples: int) -> np.ndarray:
    """Interactions drawn towards none, each option's by as much as chance would make of none.

    Q'_ab = f_a f_b Q_ab, but for the diagonal, which stays: positive semi-definite, as Q is. With s_a the variance of
    the correlations of option a with all options of other layers, over their squares, f_a = sqrt(1 - s_a). With many
    samples s vanishes; with few, plans are nearly those of the layers' own damage. Wide options have the weakest
    correlations and lose most of them, which is why each has a factor of its own: measured on a CIFAR-10 ViT, plans
    from 64 and 130 images lose less than with one factor for all (benchmarks/results/gradient_superposition.md).

    Source: Ledoit and Wolf (2003), doi:10.1016/S0927-5398(03)00007-0; of correlations, Schaefer and Strimmer (2005),
    doi:10.2202/1544-6115.1175.

    Args:
        gram: Q, shape (L, J, L, J).
        square: Mean of the squared inner products of single samples, the same shape (`core.measuring.gram_sums`).
        samples: Behind both.
    """
    factor = np.sqrt(1 - shrinkage(gram, square, samples))
    result = gram * factor
    result *= factor[:, :, None, None]
    cells = result.reshape(factor.size, factor.size)
    np.fill_diagonal(cells, np.einsum("ijij->ij", gram))
    return result


def shrinkage(gram: np.ndarray, square: np.ndarray, samples: int) -> np.ndarray:
    """The share s of each option's interactions that is chance, 0 to 1, shape (L, J); see `shrunk`."""
    own = np.einsum("ijij->ij", gram)
    if samples < 2:
        return np.ones(own.shape)
    scale = np.divide(1.0, own, out=np.zeros_like(own), where=own > 0)
    share = np.ones(own.shape)
    # A layer at a time: copies of the whole matrix would be as large as it is.
    for layer in range(len(gram)):
        weight = np.broadcast_to(scale, gram[layer].shape).copy()
        weight[:, layer] = 0
        squared = np.square(gram[layer])
        variance = (weight * (square[layer] - squared)).sum(axis=(1, 2)) / (samples - 1)
        total = (weight * squared).sum(axis=(1, 2))
        np.divide(variance, total, out=share[layer], where=total > 0)
    return np.clip(share, 0.0, 1.0)
