"""What `quantize` tells of a plan, computed anew: damage on samples that its codes were not fitted to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def by_quarters(samples: int, judge: Callable[[np.ndarray, slice], float]) -> float:
    """Mean damage of all samples, every fourth judged by codes for the others, four times.

    Args:
        samples: How many there are.
        judge: Mean damage of the samples of its second argument, by codes that were fitted to those of its first.
    """
    return _by_parts(samples, judge, 4)


def by_halves(samples: int, judge: Callable[[np.ndarray, slice], float]) -> float:
    """The same, every second judged by codes for the others: what plans that are not corrected are measured on."""
    return _by_parts(samples, judge, 2)


def _by_parts(samples: int, judge: Callable[[np.ndarray, slice], float], count: int) -> float:
    judged = [slice(start, None, count) for start in range(count)]
    fitted = [np.flatnonzero(np.arange(samples) % count != start) for start in range(count)]
    damages = [judge(others, own) for others, own in zip(fitted, judged, strict=True)]
    return float(np.average(damages, weights=[len(range(samples)[own]) for own in judged]))
