"""Bytes that layers share in a file: which options need no more of them than others do."""

from __future__ import annotations

import numpy as np

from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile


def needed_by(profile: Profile, options: np.ndarray) -> np.ndarray:
    """Which shared parts some of these options need, bool, shape (K,); `options` is bool, shape (L, J)."""
    shares = profile.array("shares")
    assert shares is not None  # Asked of profiles with shared parts alone.
    return shares[options].any(axis=0)


def without_more(profile: Profile, allowed: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The allowed options, shape (L, J), that need no shared part but these, shape (K,)."""
    shares = profile.array("shares")
    assert shares is not None
    return allowed & ~((shares > 0) & ~parts).any(axis=2)


def narrowest(problem: Problem, resource: int) -> np.ndarray:
    """The options that use least of a resource, one for each layer, ties and pins kept, bool, shape (L, J)."""
    reduction = problem.reduced()
    small = reduction.problem
    use = np.where(np.isfinite(small.cost), small.resources[resource], np.iinfo(np.int64).max)
    choice = reduction.expand(use.argmin(axis=1))
    return np.arange(problem.cost.shape[1]) == choice[:, None]
