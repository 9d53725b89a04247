"""A forward pass of many samples that stops at every layer: its inputs are looked at, its weights replaced, and on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.values.batch import Batch


class Walk(Protocol):
    """A model on its way through some samples. Layers are asked for in model order."""

    def inputs(self, name: str) -> Iterator[tuple[np.ndarray, int]]:
        """What a layer multiplies, as `Model.taps` has it but rounded where a setting rounds it, and its positions."""

    def replace(self, name: str, value: Any) -> None:
        """Go on with other weights of a layer, or a `core.measuring.setting.Setting` where the model takes such."""


@runtime_checkable
class Walking(Protocol):
    """What a model has beside the protocol `Model` where one pass serves all layers."""

    def walk(self, batch: Batch) -> Walk:
        """The model in front of its first layer."""


def walk(model: Model, batch: Batch) -> Walk:
    """A walk through a model; where it knows no better, a pass for every layer."""
    return model.walk(batch) if isinstance(model, Walking) else Passes(model, batch)


class Passes:
    """A walk that runs the model anew for every layer."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self._model = model
        self._batch = batch

    def inputs(self, name: str) -> Iterator[tuple[np.ndarray, int]]:
        """See `Walk`."""
        for layer, values, positions in self._model.taps(self._batch):
            if layer == name:
                yield values, positions

    def replace(self, name: str, value: Any) -> None:
        """See `Walk`."""
        self._model = self._model.with_weights({name: value})
