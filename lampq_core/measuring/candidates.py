"""What every layer of a model may be rounded to, made when it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lampq.core.measuring.encoding import Encoded, encoder
from lampq.core.measuring.model import Model
from lampq.core.measuring.setting import Setting
from lampq.core.quantizing.quantizer import Quantized, weight_of
from lampq.core.quantizing.shelved_codes import CodesInOrder, ShelvedCodes
from lampq.core.values.activation_rule import ActivationRule
from lampq.core.values.layer import Layer
from lampq.core.values.option import Option
from lampq.core.values.product import Product

WidthRules: TypeAlias = Callable[[int, int], ActivationRule | None]
"""How the input of a layer (by index) is rounded at a width; None where the layer has no input to round."""

# Codes that are in memory at a time, in bytes, unless a single layer has more.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dequantized(Sequence[np.ndarray]):
    """A weight in several ways: codes, a byte a weight, that become values whenever one is looked at.

    Attributes:
        codes: In rows, one for each width and rank.
        shape: Of the layer's record.
        channel_axis: Its axis of output channels.
    """

    codes: Sequence[Encoded]
    shape: tuple[int, ...]
    channel_axis: int

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        """The weight in one of the ways, by index, in the shape of the layer's record."""
        return weight_of(self.codes[index], self.shape, self.channel_axis)

    @property
    def size_bytes(self) -> int:
        """Bytes of all codes."""
        return len(self.codes) * math.prod(self.shape)

    def shelved(self, shelf: ShelvedCodes, layer: int) -> Dequantized:
        """The same with its codes on disk, if they are nothing but codes."""
        keys = []
        for index, quantized in enumerate(self.codes):
            if not isinstance(quantized, Quantized):
                return self
            keys.append((layer, index))
            shelf.put(keys[-1], quantized)
        return replace(self, codes=CodesInOrder(shelf=shelf, keys=tuple(keys)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roundings:
    """What one layer may be rounded to: every one of W weights with every one of A rules.

    Attributes:
        weights: In the shape of the layer's record.
        rules: Of its input; None leaves it float.
        squared_error: ||W_hat - W||^2, float64, shape (W,).
        steps: Distance of neighbouring integers, int64, shape (W,).
        place: Option -> its weight and rule, by index.
    """

    weights: Dequantized
    rules: tuple[ActivationRule | None, ...]
    squared_error: np.ndarray
    steps: np.ndarray
    place: dict[int, tuple[int, int]]

    def shelved(self, shelf: ShelvedCodes, layer: int) -> Roundings:
        """The same with the codes of the layer (by index) on disk."""
        return replace(self, weights=self.weights.shelved(shelf, layer))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Layers and options to measure. L layers, J options.

    Attributes:
        model: The float model.
        layers: Its L records.
        options: J options.
        available: Which options count, bool, shape (L, J).
        rules: How inputs are rounded; None leaves all of them float.
        products: Products of activations, which are measured behind the layers, one at a time.
        left: How their left factors are rounded.
    """

    model: Model
    layers: Sequence[Layer]
    options: Sequence[Option]
    available: np.ndarray
    rules: WidthRules | None = None
    products: Sequence[Product] = ()
    left: WidthRules | None = None

    @property
    def table(self) -> tuple[int, int]:
        """Numbers of layers and options."""
        return len(self.layers), len(self.options)

    def roundings(self, layer: int, columns: Sequence[int]) -> Roundings:
        """What a layer (by index) is rounded to at some of its options."""
        record = self.layers[layer]
        weights = sorted({self.options[column].weights for column in columns})
        inputs = self._inputs(columns)
        widths = list(dict.fromkeys(bits for bits, _ in weights))
        encode = encoder(self.model, record.name, record.channel_axis, widths)
        quantized = tuple(encode(bits, rank) for bits, rank in weights)
        return Roundings(
            weights=Dequantized(codes=quantized, shape=record.shape, channel_axis=record.channel_axis),
            rules=tuple(self._rule(layer, bits) for bits in inputs),
            squared_error=np.array([float(q.squared_error.sum()) for q in quantized]),
            steps=np.array([q.step for q in quantized], dtype=np.int64),
            place={
                column: (
                    weights.index(self.options[column].weights),
                    inputs.index(self._input(column)),
                )
                for column in columns
            },
        )

    def columns(self, layer: int) -> list[int]:
        """The available options of a layer, by index."""
        return [int(column) for column in np.flatnonzero(self.available[layer])]

    def settings(self, layer: int, columns: Sequence[int]) -> Iterator[tuple[int, np.ndarray | Setting]]:
        """Options of a layer as `Model.sweep` takes them."""
        roundings = self.roundings(layer, columns)
        for column, (weight, rule) in roundings.place.items():
            array = roundings.weights[weight]
            yield (
                column,
                array if self.rules is None else Setting(weight=array, activation=roundings.rules[rule]),
            )

    def every(self) -> dict[int, list[int]]:
        """Layer (by index) -> all its available options."""
        return {layer: self.columns(layer) for layer in range(len(self.layers))}

    def groups(self, columns: Mapping[int, Sequence[int]]) -> list[dict[int, Sequence[int]]]:
        """The same layers and options in groups whose codes fit in memory together."""
        groups: list[dict[int, Sequence[int]]] = []
        room = 0
        for layer, some in columns.items():
            widths = {self.options[column].weight_bits for column in some}
            needed = self.layers[layer].size * len(widths)
            if not groups or needed > room:
                groups.append({})
                room = _MOST_BYTES
            groups[-1][layer] = some
            room -= needed
        return groups

    def _inputs(self, columns: Sequence[int]) -> list[int | None]:
        return sorted({self._input(column) for column in columns}, key=lambda bits: bits or 0)

    def _input(self, column: int) -> int | None:
        return None if self.rules is None else self.options[column].activation_bits

    def _rule(self, layer: int, bits: int | None) -> ActivationRule | None:
        return None if self.rules is None or bits is None else self.rules(layer, bits)
