"""One weight replaced at a time, without repeating what comes before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

from lampq.adapters.torch.runtime import Runtime, Weights
from lampq.adapters.torch.tape import Tape, Values

Key = TypeVar("Key")

# Activations kept between candidates; what does not fit is computed again from the input.
_STATE_BYTES = 1 << 31


class Prefix:
    """A mini-batch carried forward along its tape, up to the first operator that a candidate changes.

    Args:
        tape: The tape.
        weights: The unchanged weights.
        batch: The mini-batch.
    """

    def __init__(self, tape: Tape, weights: Weights, batch: torch.Tensor) -> None:
        self._tape = tape
        self._start = tape.start(weights, batch)
        self._cuts = tape.cuts()
        self._values: Values = self._start
        self._at = 0

    def advance(self, weight: str) -> None:
        """Move to the last reusable place before `weight` is first read."""
        cut = self._tape.first_use(weight)
        while not self._cuts[cut]:
            cut -= 1
        if cut < self._at:
            self.rewind()
        self._values = self._tape.play(self._values, begin=self._at, end=cut)
        self._at = cut

    def rewind(self) -> None:
        """Back to the input; frees what was kept."""
        self._values, self._at = self._start, 0

    def finish(self, weight: str, replacement: torch.Tensor) -> torch.Tensor:
        """Logits with `weight` replaced."""
        replaced = {self._tape.weights[weight]: replacement}
        return self._tape.play(self._values, begin=self._at, replaced=replaced)[self._tape.output]

    def kept_bytes(self) -> int:
        """Memory of the activations kept."""
        fresh = [t for slot, t in self._values.items() if slot not in self._start]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in fresh}
        return sum(storages.values())


def sweep(
    runtime: Runtime, weights: Weights, batch: np.ndarray, candidates: Iterable[tuple[Key, str, torch.Tensor]]
) -> Iterator[tuple[Key, np.ndarray]]:
    """Logits with one weight replaced at a time: (key, logits), float32, shape (samples, classes).

    Args:
        runtime: The model.
        weights: Its weights.
        batch: Inputs, samples first.
        candidates: (key, weight, tensor); in the order of the forward pass nothing is computed twice.
    """
    minibatches = list(runtime.batches(batch))
    prefixes: list[Prefix | None] = [None] * len(minibatches)
    for key, name, replacement in candidates:
        logits, budget = [], _STATE_BYTES
        with torch.no_grad():
            for index, (tensor, count) in enumerate(minibatches):
                prefix = prefixes[index]
                if runtime.obstacle is None and prefix is None:
                    prefix = prefixes[index] = Prefix(runtime.recording(tensor).tape, weights, tensor)
                if prefix is None:
                    result = runtime.forward({**weights, name: replacement}, tensor)
                else:
                    prefix.advance(name)
                    result = prefix.finish(name, replacement)
                    budget -= prefix.kept_bytes()
                    if budget < 0:
                        prefix.rewind()
                logits.append(result[:count].float())
        yield key, torch.cat(logits).cpu().numpy()
