"""The model that a configuration is for, seen through whatever of it is at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lampq.conversions.entry import AnyLayer
from lampq.core.quantizing.coding import Coding
from lampq.core.values import packing
from lampq.core.values.blocks import scale_count
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.profile import Profile

if TYPE_CHECKING:
    from lampq.core.measuring.model import Model

_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """A model, a profile of it, or a plan of it.

    Attributes:
        layers: Its layers.
        label: What to call it in messages.
        container: How codes are stored.
        block: Weights that share a scale, or None: one scale per output channel.
        rest_bytes: Bytes beside the codes and scales.
        provenance: What it says of its origin.
        model: The model itself, or None where only a profile or plan is at hand.
        profile: The profile, or None.
    """

    layers: tuple[AnyLayer, ...]
    label: str
    container: str
    block: int | None
    rest_bytes: int
    provenance: Mapping[str, Any]
    model: Model | None = None
    profile: Profile | None = None

    @classmethod
    def of(cls, source: Model | Profile | Plan) -> Target:
        """Any of the three."""
        if isinstance(source, Profile | Plan):
            return cls(
                layers=source.layers,
                label="the profile" if isinstance(source, Profile) else "the plan",
                container=source.container,
                block=source.block,
                rest_bytes=source.rest_bytes,
                provenance=source.provenance,
                profile=source if isinstance(source, Profile) else None,
            )
        return cls(
            layers=source.layers(),
            label=source.path.name,
            container="bitplane",
            block=source.coding.block,
            rest_bytes=source.rest_bytes(),
            provenance={"model": source.path.name, "digest": source.digest},
            model=source,
        )

    def payload_bytes(self, layer: AnyLayer, bits: int) -> int:
        """Bytes of codes and scales of one of its layers: as its format stores them, else as few as there can be."""
        codes = packing.payload_bytes(layer.size, bits) if self.container == "bitplane" else layer.size
        if isinstance(layer, PlanLayer):
            if layer.weight_bits == bits:
                return layer.payload_bytes
            known = packing.payload_bytes(layer.size, layer.weight_bits)
            scales = layer.payload_bytes - (known if self.container == "bitplane" else layer.size)
            return codes + max(scales, 0)
        stored = None
        if self.model is not None:
            stored = self.model.payload_bytes(layer, bits, self.container)
        elif self.profile is not None and bits in self.profile.weight_bits:
            column = self.profile.weight_bits.tolist().index(bits)
            stored = int(self.profile.payload_bytes[self.profile.layers.index(layer), column])
        scales = _SCALE_BYTES * scale_count(layer.shape, layer.channel_axis, self.block)
        return codes + scales if stored is None or stored < 0 else stored

    def with_block(self, block: int | None) -> Target:
        """The same with its scales shared by blocks of this many weights; None for whole channels."""
        if block == self.block:
            return self
        model = None if self.model is None else self.model.with_coding(Coding(block=block))
        # A profile's table of bytes holds for its own block alone.
        return replace(self, block=block, model=model, profile=None)
