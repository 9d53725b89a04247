"""A subset of samples that depends on the seed and the samples' names alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from lampq.core.values.errors import AdapterError


def choose_samples(
    count: int,
    labels: np.ndarray | None,
    name: Callable[[int], str],
    *,
    samples: int | None,
    seed: int,
) -> np.ndarray:
    """Indices of the samples to use, int64.

    Without `samples`, all in their own order. With it, classes take turns, so that no two classes differ by
    more than one sample while they last, and any first part of the choice is balanced too: a smaller choice
    is the beginning of a larger one. Ranks are hashes of seed and name, so neither the file system nor
    NumPy's version can change the order.

    Args:
        count: Samples there are.
        labels: Their classes, int64, shape (count,), or None: one class.
        name: A sample's name, by which it is ranked.
        samples: How many to choose; all when there are fewer.
        seed: Any integer.

    Raises:
        AdapterError: `samples` is less than 1.
    """
    if samples is None:
        return np.arange(count)
    if samples < 1:
        raise AdapterError(f"samples={samples}: at least 1 is needed")
    classes = np.zeros(count, dtype=np.int64) if labels is None else labels
    ranked = sorted(range(count), key=lambda index: (_rank(seed, "sample", name(index)), index))
    turns: dict[int, int] = {}
    order: list[tuple[int, bytes, int]] = []
    class_ranks = {int(c): _rank(seed, "class", str(int(c))) for c in np.unique(classes)}
    for index in ranked:
        label = int(classes[index])
        turn = turns.get(label, 0)
        turns[label] = turn + 1
        order.append((turn, class_ranks[label], index))
    return np.array([index for _, _, index in sorted(order)][:samples], dtype=np.int64)


def _rank(seed: int, kind: str, name: str) -> bytes:
    text = f"{seed}\0{kind}\0{name}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
