"""Small operations on the weights of a knapsack that solvers and curves share."""

from __future__ import annotations

import numpy as np

_SAMPLE = 4096


def lighten(use: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Take off what every choice uses, then the common divisor.

    Args:
        use: What each option uses, shape (L, J), int64, >= 0.
        allowed: Which options count, shape (L, J).

    Returns:
        Weights, shape (L, J), with `use == least + divisor * weight` summed over any allowed choice; the
        weight of an option that is not allowed is 0. Then `least`, the sum over the lightest options, and
        `divisor`, >= 1.

    >>> weight, least, divisor = lighten(np.array([[10, 16], [4, 8]]), np.ones((2, 2), dtype=bool))
    >>> weight.tolist(), least, divisor
    ([[0, 3], [0, 2]], 14, 2)
    """
    every = bool(allowed.all())
    lightest = (use if every else np.where(allowed, use, np.iinfo(np.int64).max)).min(axis=1)
    weight = use - lightest[:, None]
    if not every:
        weight[~allowed] = 0
    divisor = _common_divisor(weight.ravel())
    return (weight // divisor if divisor > 1 else weight), int(lightest.sum()), divisor


def undominated(weight: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Positions of the states that no lighter or equal one undercuts, by rising weight and falling cost.

    Args:
        weight: Shape (S,).
        cost: Shape (S,).

    >>> undominated(np.array([3, 1, 2, 1]), np.array([0.5, 4.0, 4.0, 3.0])).tolist()
    [3, 0]
    """
    order = np.argsort(weight, kind="stable")
    weight, cost = weight[order], cost[order]
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = cost[1:] < np.minimum.accumulate(cost)[:-1]
    front = np.flatnonzero(keep)
    # Of several states of one weight only the last, cheapest, one counts.
    last = np.ones(len(front), dtype=bool)
    last[:-1] = weight[front[1:]] != weight[front[:-1]]
    return order[front[last]]


def _common_divisor(values: np.ndarray) -> int:
    """Greatest common divisor of all entries; 1 where all are zero."""
    divisor = int(np.gcd.reduce(values[:_SAMPLE])) if values.size else 1
    # A gcd is dear and a remainder cheap, and the first few entries nearly always settle it.
    if divisor == 0 or (divisor > 1 and (values % divisor).any()):
        divisor = int(np.gcd.reduce(values))
    return max(divisor, 1)
