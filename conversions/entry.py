"""What a foreign configuration and a plan have in common: widths by address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from lampq.core.values.errors import PlanError
from lampq.core.values.layer import Layer
from lampq.core.values.plan_layer import PlanLayer

if TYPE_CHECKING:
    from lampq.conversions.target import Target

AnyLayer: TypeAlias = Layer | PlanLayer
Widths: TypeAlias = tuple[int, int | None]
"""Bits of the weights, and of the input or None."""


class NoPlaceError(PlanError):
    """A tool has no place for a layer; the message is the reason, without the layer's name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One layer on its way out.

    Attributes:
        layer: The target's record.
        addresses: What the tool calls it; several where the tool knows it in several places.
        weight_bits: Width of the weights.
        activation_bits: Width of the input, or None for float.
        block: Weights of a row that share a scale, or None: one scale a row.
    """

    layer: AnyLayer
    addresses: tuple[str, ...]
    weight_bits: int
    activation_bits: int | None
    block: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What a configuration says.

    Attributes:
        widths: Address -> widths.
        strangers: Addresses or patterns that are nothing of the target.
        unknown: Keys that a plan has no field for, as they stood.
        blocks: The numbers of weights that share a scale, where rows are cut.
    """

    widths: Mapping[str, Widths]
    strangers: tuple[str, ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict)
    blocks: frozenset[int] = frozenset()


class Format(Protocol):
    """A module of this package: one tool's configuration.

    Attributes:
        TITLE: The tool and what of it, for people.
        WEIGHT_BITS: Widths that it can express, increasing. A module whose tool offers some layers fewer also has a
            function `weight_bits(layer, target)`.
        BLOCKS: Whether scales may be shared by blocks of a row, or are none of its business.
        ACTIVATION_BITS: Widths of inputs, None among them where inputs may stay float.
    """

    TITLE: str
    WEIGHT_BITS: tuple[int, ...]
    ACTIVATION_BITS: tuple[int | None, ...]
    BLOCKS: bool

    def addresses(self, layer: AnyLayer, target: Target) -> tuple[str, ...]:
        """What the tool calls a layer.

        Raises:
            NoPlaceError: It has no place for it.
            PlanError: It takes a model of another format to tell.
        """

    def write(self, entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
        """The text of the configuration; `unknown` are the unknown keys of one that was read before."""

    def read(self, text: str, addresses: Sequence[str]) -> Foreign:
        """What a configuration says of these addresses.

        Raises:
            PlanError: It is no such configuration, or says what no plan can.
        """
