"""Samples drawn from spaces, and the best of many by what a model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from lampq.adapters.synthetic.spaces import Space
from lampq.core.values.progress import Progress

Samples = dict[str, np.ndarray]
"""Samples by name of the input, as their spaces have them."""
Deviations = Callable[[Samples, np.ndarray], np.ndarray]
"""Samples and their rows among fixed inputs in; what each adds to every moment beyond what is wanted out."""


def draw(spaces: Mapping[str, Space], numbers: Iterable[int], seed: int) -> Samples:
    """Samples of these numbers, each of which depends on the seed and its number alone."""
    wanted = [int(number) for number in numbers]
    return {
        name: np.concatenate([space.draw(1, seed=seed, first=number) for number in wanted])
        for name, space in spaces.items()
    }


def select_drawn(
    spaces: Mapping[str, Space],
    count: int,
    candidates: int,
    deviations: Deviations,
    *,
    run_size: int,
    seed: int,
    progress: Progress,
) -> Samples:
    """As many of the candidates as are wanted, those whose deviations cancel.

    Args:
        spaces: What is drawn, by name of the input.
        count: Samples wanted.
        candidates: Samples drawn for each of them; 1 takes what comes.
        deviations: What the model makes of samples.
        run_size: Samples that it is asked about at a time.
        seed: Any integer from 0.
        progress: Told after every run.
    """
    if candidates == 1:
        return draw(spaces, range(count), seed)
    told = []
    for numbers in runs(count * candidates, run_size):
        told.append(deviations(draw(spaces, numbers, seed), np.asarray(numbers) % count))
        progress("drawing synthetic samples", numbers.stop, count * candidates)
    # Drawn once more: to keep all of them could take gigabytes.
    return draw(spaces, cancelling(np.concatenate(told), count), seed)


def runs(count: int, size: int) -> Iterator[range]:
    """Numbers of samples, at most `size` at a time."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def class_deviations(probabilities: np.ndarray) -> np.ndarray:
    """How far samples are from naming all classes alike, shape (samples, C)."""
    deviations: np.ndarray = probabilities - 1 / probabilities.shape[1]
    return deviations


def cancelling(deviations: np.ndarray, count: int) -> np.ndarray:
    """Numbers of samples whose deviations cancel: one after the other, the one that leaves the least sum (herding).

    Welling (2009) draws samples with given moments so; with n of them the moments miss by about 1 / n, not by
    1 / sqrt(n) as those of samples drawn at random.

    Args:
        deviations: What each sample adds to each moment beyond what is wanted, shape (samples, moments).
        count: How many to take.

    Returns:
        Distinct numbers in the order they were taken, int64.
    """
    rows = np.asarray(deviations, dtype=np.float64)
    squares = np.square(rows).sum(axis=1)
    total = np.zeros(rows.shape[1])
    free = np.ones(len(rows), dtype=bool)
    chosen = np.empty(min(count, len(rows)), dtype=np.int64)
    for place in range(len(chosen)):
        left = np.where(free, 2 * (rows @ total) + squares, np.inf)
        best = int(left.argmin())
        chosen[place], free[best] = best, False
        total += rows[best]
    return chosen
