"""Probabilities of classes from their logits."""

from __future__ import annotations

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64, over the last axis; -inf stays -inf where another class is finite."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl_divergence(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(p || q) over the last axis in nats, >= 0; classes of probability zero under p count nothing.

    Args:
        log_p: Log-probabilities, shape (..., C).
        log_q: Same shape.
    """
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        terms = p * (log_p - log_q)
    if not np.isfinite(terms).all():
        terms = np.where(p == 0, 0.0, terms)
    # The clamp only removes rounding below zero where both agree.
    return np.maximum(terms.sum(axis=-1), 0.0)
