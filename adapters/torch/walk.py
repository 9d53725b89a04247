"""A forward pass that stops at every layer and goes on with its weights replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from lampq.adapters.torch.chunks import Chunk
from lampq.adapters.torch.rounding import sites
from lampq.adapters.torch.sweep import STATE_BYTES, Change, Prefix
from lampq.adapters.torch.variant import Variant
from lampq.core.measuring.setting import Setting

Changed = Callable[[str, np.ndarray | Setting], Change]
"""What a weight or setting of a layer changes."""


class TorchWalk:
    """See `lampq.core.measuring.walk.Walk`.

    Args:
        model: The model.
        chunks: Its samples, some at a time.
        changed: What a weight or setting of a layer changes.
    """

    def __init__(self, model: Variant, chunks: Sequence[Chunk], changed: Changed) -> None:
        self._model = model
        self._changed = changed
        self._chunks = chunks
        self._rounding = model.rounding
        products = model.rounding.products
        self._recordings = [model.runtime.recording(chunk.inputs, products=products) for chunk in chunks]
        self._prefixes = [
            Prefix(recording, model.tensors, model.rounding, chunk.inputs, products=products)
            for recording, chunk in zip(self._recordings, chunks, strict=True)
        ]

    # Around the function, not within: there it would stay switched off for callers between two steps.
    @torch.no_grad()
    def inputs(self, name: str) -> Iterator[tuple[np.ndarray, int]]:
        """What a layer multiplies, rounded where its input is, and how often a sample uses its weights."""
        weight, budget = self._model.parameters[name], STATE_BYTES
        size, rule = self._model.tensors[weight].numel(), self._rounding.rules.get(weight)
        for chunk, recording, prefix in zip(self._chunks, self._recordings, self._prefixes, strict=True):
            uses = {use: layout for use, layout in recording.uses if use.weight == weight}
            positions = round(sum(use.multiplications for use in uses) / (chunk.size * size))
            axes = {site.operation: site.axes for site in sites(recording)} if rule is not None else {}
            prefix.advance(Change(weight=weight))
            for use, value in prefix.reach([use for use in uses if use.form != "lookup"]):
                read = value if rule is None else rule.apply(value, axes[use.operation], torch)
                units, layout = use.units(read), uses[use]
                if layout is not None:
                    units = layout.first_samples(units, chunk.size, chunk.count)
                yield units.float().cpu().numpy(), positions
            budget -= prefix.kept_bytes()
            if budget < 0:
                prefix.rewind()

    def replace(self, name: str, value: np.ndarray | Setting) -> None:
        """Go on with a layer changed."""
        change = self._changed(name, value)
        self._rounding = self._rounding.changed(change.rules)
        for prefix in self._prefixes:
            prefix.replace(change, self._rounding)
