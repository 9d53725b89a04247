"""Damage in nats from logits, written plainly: what tests hold the readouts against."""

from __future__ import annotations

import numpy as np

MASKED = -1e4
"""The logit that stands for minus infinity: its class has probability 0, and differences are numbers."""


def unmasked(logits: np.ndarray) -> np.ndarray:
    """Logits with `MASKED` in the place of minus infinity, which models give to classes that cannot be.

    So a class that both of two models rule out counts for nothing, and one that only the other rules out for much.
    """
    return np.where(np.isneginf(logits), np.float32(MASKED), logits) if np.isneginf(logits).any() else logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64, over the last axis."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl_divergence(reference: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """KL(p_reference || p_logits) per sample in nats, float64, >= 0.

    Args:
        reference: Logits of the reference model, shape (..., S, C).
        logits: Logits of the other model, same trailing shape.
    """
    log_p, log_q = log_softmax(reference), log_softmax(logits)
    # The clamp only removes rounding below zero where both agree.
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=-1), 0.0)


def second_order_kl(reference: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Var_p(dz) / 2 per sample in nats: the KL of a small logit difference to second order.

    Args:
        reference: Reference logits, shape (S, C).
        difference: Logit differences, shape (..., S, C).
    """
    p = np.exp(log_softmax(reference))
    centred = difference - (p * difference).sum(axis=-1, keepdims=True)
    return 0.5 * (p * centred * centred).sum(axis=-1)
