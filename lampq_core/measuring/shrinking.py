"""Interactions that a few samples tell badly, lessened by their own sampling error."""

from __future__ import annotations

import numpy as np


def shrunk(gram: np.ndarray, square: np.ndarray, samples: int) -> np.ndarray:
    """Interactions of different layers, drawn towards none by as much as chance would make of none.

    Q' = (1 - s) Q + s (the part of Q within layers), with s the variance of the correlations between layers over
    their squares: the best such combination in mean square (Ledoit and Wolf, doi:10.1016/S0047-259X(03)00096-4;
    for correlations Schaefer and Strimmer, doi:10.2202/1544-6115.1175). It is positive semi-definite, as both parts
    are. With many samples s vanishes; with few, plans are nearly those of the layers' own damage.

    Args:
        gram: Q, shape (L, J, L, J).
        square: Mean of the squared inner products of single samples, the same shape.
        samples: Behind both.
    """
    share = shrinkage(gram, square, samples)
    result = gram * (1 - share)
    for layer, own in enumerate(np.einsum("ijik->ijk", gram)):
        result[layer, :, layer] = own
    return result


def shrinkage(gram: np.ndarray, square: np.ndarray, samples: int) -> float:
    """The share s by which `shrunk` lessens interactions between layers, 0 to 1."""
    if samples < 2:
        return 1.0
    own = np.einsum("ijij->ij", gram)
    scale = np.divide(1.0, own, out=np.zeros_like(own), where=own > 0)
    variance, total = 0.0, 0.0
    # A layer at a time: copies of the whole matrix would be as large as it is.
    for layer in range(len(gram)):
        weight = scale[layer][:, None, None] * scale
        weight[:, layer] = 0
        squared = np.square(gram[layer])
        variance += float((weight * (square[layer] - squared)).sum()) / (samples - 1)
        total += float((weight * squared).sum())
    return min(max(variance / total, 0.0), 1.0) if total > 0 else 1.0
