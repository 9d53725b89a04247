"""Interactions that a few samples tell badly, lessened by their own sampling error."""

from __future__ import annotations

import numpy as np


def shrunk(gram: np.ndarray, square: np.ndarray, samples: int) -> np.ndarray:
    """Interactions drawn towards none, each layer's by as much as they are chance.

    Q'_ab = f_k f_l Q_ab for options a, b of layers k, l, but for the diagonal, which stays: positive semi-definite, as
    Q is. With s_k the share of chance (`shrinkage`), f_k = sqrt(1 - s_k): a correlation becomes about what is to
    be expected of it, given what was seen. A search over such numbers is not led astray by those that happen to be
    large. With many samples s vanishes; with a handful, plans are those of the layers' own damage.

    Source: James and Stein (1961), and Efron and Morris (1973), doi:10.2307/2284155, for means of many normal values;
    of correlations, Schaefer and Strimmer (2005), doi:10.2202/1544-6115.1175.

    Args:
        gram: Q, shape (L, J, L, J).
        square: Mean of the squared inner products of single samples, the same shape (`core.measuring.gram_sums`).
        samples: Behind both.
    """
    factor = np.sqrt(1 - shrinkage(gram, square, samples))
    result = gram * factor[:, None]
    result *= factor[:, None, None, None]
    cells = result.reshape(factor.size * gram.shape[1], -1)
    np.fill_diagonal(cells, np.einsum("ijij->ij", gram))
    return result


def shrinkage(gram: np.ndarray, square: np.ndarray, samples: int) -> np.ndarray:
    """The share of each layer's interactions that is chance, 0 to 1, shape (L,).

    v_k / (t + v_k), with v_k the mean variance of the correlations of the options of layer k with those of all other
    layers, and t the mean square of all correlations less their mean variance: what they scatter by themselves.
    """
    own = np.einsum("ijij->ij", gram)
    # One sample fewer for the mean, and one for the scale that own damages, of the same samples, set.
    freedom = samples - 2
    if freedom < 1:
        return np.ones(len(own))
    scale = np.divide(1.0, own, out=np.zeros_like(own), where=own > 0)
    count, variance, total = np.zeros((3, len(own)))
    # A layer at a time: copies of the whole matrix would be as large as it is.
    for layer, mine in enumerate(scale):
        others = scale.copy()
        others[layer] = 0
        squared = np.square(gram[layer])
        count[layer] = np.count_nonzero(mine) * np.count_nonzero(others)
        total[layer] = np.einsum("j,jkl,kl", mine, squared, others)
        variance[layer] = np.einsum("j,jkl,kl", mine, square[layer] - squared, others) / freedom
    genuine = max(float((total - variance).sum()), 0.0) / max(float(count.sum()), 1.0)
    variance = np.divide(np.maximum(variance, 0), count, out=np.zeros_like(count), where=count > 0)
    return np.divide(variance, genuine + variance, out=np.ones_like(count), where=genuine + variance > 0)
