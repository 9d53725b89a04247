"""Bytes that layers share in a file: which options need no more of them than a choice does."""

from __future__ import annotations

import numpy as np

from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile


def needed_by(profile: Profile, choice: np.ndarray) -> np.ndarray:
    """Which shared parts a choice of shape (L,) needs, bool, shape (K,)."""
    shares = profile.array("shares")
    assert shares is not None  # Asked of profiles with shared parts alone.
    return shares[np.arange(len(choice)), choice].any(axis=0)


def without_more(profile: Profile, allowed: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The allowed options, shape (L, J), that need no shared part but these, shape (K,)."""
    return allowed & ~((profile.array("shares") > 0) & ~parts).any(axis=2)


def with_spare(profile: Profile, allowed: np.ndarray, parts: np.ndarray, spare: int) -> np.ndarray:
    """These shared parts, shape (K,), and all that further options need, as long as it takes `spare` bytes at most."""
    shares, sizes = profile.array("shares"), profile.array("shared_bytes")
    assert shares is not None and sizes is not None
    needs = [shares[:, column][allowed[:, column]].any(axis=0) for column in range(allowed.shape[1])]
    for more in sorted(needs, key=lambda need: int(sizes @ (need & ~parts))):
        if int(sizes @ (more & ~parts)) <= spare:
            spare -= int(sizes @ (more & ~parts))
            parts = parts | more
    return parts


def narrowest(problem: Problem, resource: int) -> np.ndarray:
    """The choice that uses least of a resource, ties and pins kept, shape (L,)."""
    reduction = problem.reduced()
    small = reduction.problem
    use = np.where(np.isfinite(small.cost), small.resources[resource], np.iinfo(np.int64).max)
    return reduction.expand(use.argmin(axis=1))
