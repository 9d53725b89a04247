"""What `quantize` tells of a plan, computed anew: damage on samples that its codes were not fitted to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def by_halves(samples: int, judge: Callable[[slice, slice], float]) -> float:
    """Mean damage of all samples, every second judged by codes for the others and these by codes for it.

    Args:
        samples: How many there are.
        judge: Mean damage of the samples of its second argument, by codes that were fitted to those of its first.
    """
    halves = [slice(start, None, 2) for start in range(2)]
    damages = [judge(fitted, judged) for fitted, judged in zip(halves, halves[::-1], strict=True)]
    return float(np.average(damages, weights=[len(range(samples)[judged]) for judged in halves[::-1]]))
