"""The order of options: one is wider than another when neither its weights nor its input are narrower.

With one input width the options form a chain. With several they do not: w4a8 and w8a4 are neither wider nor
narrower than each other, and an option can have two that come next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq.core.values.option import Option


def cover_table(options: Sequence[Option]) -> np.ndarray:
    """Which options cover which, bool, shape (J, J): entry (a, b) tells whether a is as wide as b or wider.

    >>> pairs = [Option(weight_bits=w, activation_bits=a) for w in (2, 4) for a in (4, 8)]
    >>> cover_table(pairs)[3].tolist(), cover_table(pairs)[1].tolist()
    ([True, True, True, True], [True, True, False, False])
    """
    return np.array([[a.covers(b) for b in options] for a in options], dtype=bool)


def running_minimum(scores: np.ndarray, options: Sequence[Option]) -> np.ndarray:
    """The least score among an option and all narrower ones, shape (L, J).

    Args:
        scores: Shape (L, J); +inf where there is none.
        options: J options in rising order.
    """
    covers = cover_table(options)
    if covers[np.tril_indices(len(options))].all():
        return np.minimum.accumulate(scores, axis=1)
    return np.stack([scores[:, row].min(axis=1) for row in covers], axis=1)


def next_options(covers: np.ndarray, allowed: np.ndarray, at: int) -> tuple[list[int], list[int]]:
    """The next narrower and the next wider allowed options: those with no other allowed option in between.

    Args:
        covers: From `cover_table`, shape (J, J).
        allowed: Bool, shape (J,).
        at: Where to look from; it need not be allowed.

    Returns:
        Indices of the next narrower ones and of the next wider ones, rising.

    >>> pairs = [Option(weight_bits=w, activation_bits=a) for w in (2, 3, 4) for a in (4, 8)]
    >>> next_options(cover_table(pairs), np.ones(6, dtype=bool), 3)
    ([1, 2], [5])
    """
    others = np.asarray(allowed, dtype=bool) & (np.arange(len(covers)) != at)
    below, above = np.flatnonzero(covers[at] & others), np.flatnonzero(covers[:, at] & others)
    # Every option covers itself, so one cover within the candidates means none but its own.
    narrower = below[covers[np.ix_(below, below)].sum(axis=0) == 1]
    wider = above[covers[np.ix_(above, above)].sum(axis=1) == 1]
    return narrower.tolist(), wider.tolist()
