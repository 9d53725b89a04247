"""One layer changed at a time, without repeating what comes before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from lampq.adapters.torch.chunks import Chunk, join, real_rows
from lampq.adapters.torch.rounding import NOTHING, Rounding, sites
from lampq.adapters.torch.runtime import Recording, Runtime, Weights
from lampq.adapters.torch.tape import Named, Values
from lampq.adapters.torch.uses import Use
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.batch import Batch
from lampq.core.values.head import Head

Key = TypeVar("Key")

# Activations kept between candidates; what does not fit is computed again from the input.
STATE_BYTES = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Change:
    """What a candidate changes.

    Attributes:
        weight: The parameter, or the one whose input is rounded differently; None for a product.
        tensor: Its new value; None keeps it.
        rules: Name of a site -> rule that is new; None leaves the site float.
    """

    weight: str | None = None
    tensor: torch.Tensor | None = None
    rules: Mapping[str, ActivationRule | None] = field(default_factory=dict)

    def on(self, weights: Weights) -> Weights:
        """The weights with the change."""
        if self.weight is None or self.tensor is None:
            return weights
        return {**weights, self.weight: self.tensor}


class Prefix:
    """A mini-batch carried forward along its tape, up to the first operator that a candidate changes.

    Args:
        recording: The tape.
        weights: The unchanged weights.
        rounding: The unchanged rounding of activations.
        inputs: The mini-batch.
        products: Whether the tape shows the factors of attention.

    Attributes:
        products: The same.
    """

    def __init__(
        self,
        recording: Recording,
        weights: Weights,
        rounding: Rounding,
        inputs: Named,
        *,
        products: bool = False,
    ) -> None:
        self.products = products
        self._recording = recording
        self._tape = recording.tape
        self._call = rounding.call(recording)
        self._sites = {site.name: site.operation for site in sites(recording) if "@" in site.name}
        self._start = self._tape.start(weights, inputs)
        self._cuts = self._tape.cuts()
        self._values: Values = self._start
        self._at = 0

    def advance(self, change: Change) -> None:
        """Move to the last reusable place before what a change changes is first read."""
        if change.weight is None:
            cut = min(self._sites[name] for name in change.rules)
        else:
            cut = self._tape.first_use(change.weight)
        while not self._cuts[cut]:
            cut -= 1
        if cut < self._at:
            self.rewind()
        self._values = self._tape.play(self._values, begin=self._at, end=cut, call=self._call)
        self._at = cut

    def rewind(self) -> None:
        """Back to the input; frees what was kept."""
        self._values, self._at = self._start, 0

    def finish(self, change: Change, rounding: Rounding | None = None) -> dict[str, torch.Tensor]:
        """Outputs with the change; `rounding` where that changes too."""
        call = self._call if rounding is None else rounding.call(self._recording)
        values = self._values
        if change.weight is not None and change.tensor is not None:
            values = {**values, self._tape.weights[change.weight]: change.tensor}
        return self._tape.results(self._tape.play(values, begin=self._at, call=call))

    def reach(self, uses: Sequence[Use]) -> Iterator[tuple[Use, torch.Tensor]]:
        """What uses of the weight that it has been moved to read, in order; it stays where it is."""
        values, at = self._values, self._at
        for use in uses:
            values = self._tape.play(values, begin=at, end=use.operation, call=self._call)
            at = use.operation
            yield use, values[self._tape.operations[at].read_slot(use.data)]

    def replace(self, change: Change, rounding: Rounding) -> None:
        """Go on with a change of the weight that it has been moved to, and the rounding that it makes."""
        self._call = rounding.call(self._recording)
        if change.weight is not None and change.tensor is not None:
            new = {self._tape.weights[change.weight]: change.tensor}
            self._start, self._values = {**self._start, **new}, {**self._values, **new}

    def kept_bytes(self) -> int:
        """Memory of the activations kept."""
        fresh = [t for slot, t in self._values.items() if slot not in self._start]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in fresh}
        return sum(storages.values())


def forward(runtime: Runtime, weights: Weights, rounding: Rounding, inputs: Named) -> dict[str, torch.Tensor]:
    """Outputs with activations rounded, without gradients."""
    if not rounding.rules:
        return runtime.outputs(weights, inputs)
    recording = runtime.recording(inputs, weights, products=rounding.products)
    with torch.no_grad():
        return recording.tape.run(weights, inputs, rounding.call(recording))


def sweep(
    runtime: Runtime,
    weights: Weights,
    batch: Batch,
    candidates: Iterable[tuple[Key, Change]],
    heads: Sequence[Head],
    rounding: Rounding = NOTHING,
) -> Iterator[tuple[Key, Batch]]:
    """Canonical outputs with one layer changed at a time: (key, outputs).

    Args:
        runtime: The model.
        weights: Its weights.
        batch: Inputs, samples first.
        candidates: (key, change); in the order of the forward pass nothing is computed twice.
        heads: What is judged.
        rounding: Of the activations, changes apart.
    """
    chunks = list(runtime.chunks(batch))
    groups = [chunk.group for chunk in chunks]
    prefixes: list[Prefix | None] = [None] * len(chunks)
    for key, change in candidates:
        outputs, budget = [], STATE_BYTES
        changed = rounding.changed(change.rules) if change.rules else rounding
        for index, chunk in enumerate(chunks):
            prefix = prefixes[index]
            if prefix is not None and changed.products and not prefix.products:
                prefix = None
            if runtime.obstacle is None and prefix is None:
                prefix = prefixes[index] = _prefix(runtime, weights, rounding, chunk, changed.products)
            if prefix is None:
                own = change.on(weights)
                result = forward(runtime, own, changed, chunk.inputs)
            else:
                with torch.no_grad():
                    prefix.advance(change)
                    result = prefix.finish(change, changed if changed is not rounding else None)
                budget -= prefix.kept_bytes()
                if budget < 0:
                    prefix.rewind()
            outputs.append(real_rows(result, chunk, heads, runtime.name))
        yield key, join(outputs, groups, heads, runtime.name)


def _prefix(runtime: Runtime, weights: Weights, rounding: Rounding, chunk: Chunk, products: bool) -> Prefix:
    recording = runtime.recording(chunk.inputs, products=products)
    return Prefix(recording, weights, rounding, chunk.inputs, products=products)
