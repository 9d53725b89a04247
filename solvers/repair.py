"""Greedy changes of one layer at a time that make a choice fit, or cheaper."""

from __future__ import annotations

import numpy as np

_STEPS = 1000


def fits(choice: np.ndarray, weights: np.ndarray, limits: np.ndarray) -> bool:
    """Whether a choice, shape (L,), keeps every limit, shape (R,)."""
    return bool((weights[:, np.arange(len(choice)), choice].sum(axis=1) <= limits).all())


def repair(
    choice: np.ndarray, price: np.ndarray, weights: np.ndarray, limits: np.ndarray, unit: np.ndarray
) -> np.ndarray | None:
    """Lower the use that exceeds the limits, cheapest reduction first, until it fits; None where that fails.

    Args:
        choice: Option per layer, shape (L,).
        price: Reduced cost of each option, shape (L, J), +inf where not allowed.
        weights: Shape (R, L, J), int64.
        limits: Shape (R,), int64.
        unit: Makes the resources commensurable, shape (R,).
    """
    choice = choice.copy()
    layers = np.arange(len(choice))
    for _ in range(_STEPS):
        chosen = weights[:, layers, choice]
        over = chosen.sum(axis=1) - limits
        if (over <= 0).all():
            return choice
        after = over[:, None, None] + (weights - chosen[:, :, None])
        excess = float(np.maximum(over, 0) @ unit)
        relief = excess - np.tensordot(unit, np.maximum(after, 0), axes=1)
        dearer = price - price[layers, choice][:, None]
        # A change that costs nothing more is best where it relieves most.
        rate = np.full(price.shape, np.inf)
        # Relief within the rounding of its own difference is none.
        np.divide(np.maximum(dearer, 0) + 1e-12, relief, out=rate, where=relief > 1e-12 * excess)
        best = int(np.argmin(rate))
        if rate.ravel()[best] == np.inf:
            return None
        choice[best // price.shape[1]] = best % price.shape[1]
    return None


def improve(choice: np.ndarray, cost: np.ndarray, weights: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Make the change that saves most among those that fit, until none does; `choice` fits and stays so."""
    choice = choice.copy()
    layers = np.arange(len(choice))
    for _ in range(_STEPS):
        chosen = weights[:, layers, choice]
        left = limits - chosen.sum(axis=1)
        feasible = ((weights - chosen[:, :, None]) <= left[:, None, None]).all(axis=0)
        saving = np.where(feasible, cost[layers, choice][:, None] - cost, -np.inf)
        best = int(np.argmax(saving))
        if saving.ravel()[best] <= 0:
            break
        choice[best // cost.shape[1]] = best % cost.shape[1]
    return choice
