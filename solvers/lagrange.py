"""Multipliers of several resources at once: the dual of the linear relaxation, by a smoothed Newton method.

For multipliers m >= 0, the sum over layers of min_j (cost + m . weight), less m . capacity, bounds the cost
of every choice from below, and its maximum over m is the bound of the linear relaxation. It is concave but
has kinks. With the minimum replaced by a soft one at temperature t it is smooth, with gradient and Hessian in
closed form; the temperature falls until the soft minimum is the minimum.
"""

from __future__ import annotations

import numpy as np

# Temperatures relative to the largest cost.
_HOTTEST, _COLDEST, _COOLING = 0.1, 1e-9, 0.25
_WARM, _COOL = 1e-3, 1e-6
_STEPS = 6


def bound(cost: np.ndarray, weights: np.ndarray, capacities: np.ndarray, multipliers: np.ndarray) -> float:
    """Lower bound that `multipliers`, shape (R,), >= 0, prove on the cost of every choice."""
    total = cost + np.tensordot(multipliers, weights, axes=1)
    return float(total.min(axis=1).sum() - multipliers @ capacities)


def best_multipliers(
    cost: np.ndarray, weights: np.ndarray, capacities: np.ndarray, *, start: np.ndarray | None = None
) -> np.ndarray:
    """Multipliers that (nearly) maximise `bound`, shape (R,), >= 0.

    Args:
        cost: Shape (L, J), +inf where not allowed.
        weights: Shape (R, L, J), float64, >= 0, of about unit sum.
        capacities: Shape (R,).
        start: Multipliers of a similar problem; begins warm rather than hot, and ends cool rather than cold.
    """
    finite = np.isfinite(cost)
    largest = float(cost[finite].max())
    here = np.zeros(len(weights)) if start is None else start.copy()
    best, best_bound = here, bound(cost, weights, capacities, here)
    if largest == 0:
        return best
    temperature, last = (_HOTTEST, _COLDEST) if start is None else (_WARM, _COOL)
    worst = float(np.where(finite, cost, 0.0).max(axis=1).sum())
    # Where nothing fits, even in fractions, the bound has no maximum; past the dearest choice it says enough.
    while temperature > last and best_bound <= worst:
        here = _climb(cost, weights, capacities, here, temperature * largest)
        value = bound(cost, weights, capacities, here)
        if value > best_bound:
            best, best_bound = here, value
        temperature *= _COOLING
    return best


def _climb(
    cost: np.ndarray, weights: np.ndarray, capacities: np.ndarray, here: np.ndarray, temperature: float
) -> np.ndarray:
    """Newton steps on the smooth bound at one temperature, kept to multipliers >= 0."""
    reach = 10 * float(cost[np.isfinite(cost)].max())
    value, gradient, hessian = _smooth(cost, weights, capacities, here, temperature)
    for _ in range(_STEPS):
        free = (here > 0) | (gradient > 0)
        if not free.any() or np.abs(gradient[free]).max() < 1e-12:
            break
        step = np.zeros(len(here))
        curvature = hessian[np.ix_(free, free)]
        ridge = np.eye(len(curvature)) * (1e-9 * np.trace(curvature) + 1e-30)
        step[free] = np.linalg.solve(curvature + ridge, gradient[free])
        # Where every layer is nearly settled there is no curvature, and a full step would lead anywhere.
        step *= min(1.0, max(reach, 10 * float(here.max())) / max(float(np.abs(step).max()), 1e-300))
        length = 1.0
        while length > 1e-3:
            there = np.maximum(here + length * step, 0.0)
            trial = _smooth(cost, weights, capacities, there, temperature)
            if trial[0] > value:
                break
            length *= 0.3
        else:
            break
        here, (value, gradient, hessian) = there, trial
    return here


def _smooth(
    cost: np.ndarray, weights: np.ndarray, capacities: np.ndarray, multipliers: np.ndarray, temperature: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """The smooth bound, its gradient (R,) and its negated Hessian (R, R)."""
    total = cost + np.tensordot(multipliers, weights, axes=1)
    least = total.min(axis=1, keepdims=True)
    share = np.exp((least - total) / temperature)
    norm = share.sum(axis=1, keepdims=True)
    share /= norm
    value = float(least.sum() - temperature * np.log(norm).sum() - multipliers @ capacities)
    weighted = weights * share
    mean = weighted.sum(axis=2)
    # As one product of matrices: these arrays are small, and planning an `einsum` takes longer than they do.
    second = weighted.reshape(len(weights), -1) @ weights.reshape(len(weights), -1).T - mean @ mean.T
    return value, mean.sum(axis=1) - capacities, second / temperature
