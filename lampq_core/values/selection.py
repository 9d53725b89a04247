"""Which layers of a model are quantized at all: those that stay float are chosen in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lampq.core.values.errors import PlanError, RecordError
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.layer import LARGEST_COUNT, Layer
from lampq.core.values.patterns import select

# What a float weight takes in a file at most: files of half precision take less.
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLayer:
    """A layer that stays float because the user says so.

    Attributes:
        name: Layer name in the model.
        size: Number of weights.
        fingerprint: Identity of its weight, so that it is found in other files of the model.
        folded: The same with the normalization behind it folded in, or None.
        why: What the user said.
    """

    name: str
    size: int
    fingerprint: Fingerprint
    folded: Fingerprint | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if not self.name or not 0 < self.size <= LARGEST_COUNT:
            raise RecordError(f"kept layer {self.name!r}: {self.size} weights cannot be")

    @property
    def float_bytes(self) -> int:
        """Bytes of its weights in a file, at most."""
        return _FLOAT_BYTES * self.size

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "name": self.name,
            "size": self.size,
            "fingerprint": self.fingerprint.to_text(),
            **({} if self.folded is None else {"folded": self.folded.to_text()}),
            "why": self.why,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KeptLayer:
        """The inverse of `to_json`.

        Raises:
            RecordError: It is no kept layer.
        """
        return cls(
            name=str(data["name"]),
            size=int(data["size"]),
            fingerprint=Fingerprint.from_text(str(data["fingerprint"])),
            folded=None if data.get("folded") is None else Fingerprint.from_text(str(data["folded"])),
            why=str(data.get("why", "")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Layers to quantize, by patterns of names or kinds (`core.values.patterns`).

    Attributes:
        keep: Layers that stay float.
        only: Where there are any, all layers beside these stay float.
    """

    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def split(self, layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], tuple[KeptLayer, ...]]:
        """The layers to quantize, and those that stay float, each in model order.

        Raises:
            PlanError: A pattern matches nothing, or no layer is left.
        """
        reasons: dict[int, str] = {}
        if self.only:
            picked = {index for pattern in self.only for index in select(layers, pattern)}
            names = ", ".join(self.only)
            reasons |= {i: f"not among --only {names}" for i in range(len(layers)) if i not in picked}
        for pattern in self.keep:
            reasons |= dict.fromkeys(select(layers, pattern), f"kept by --keep {pattern}")
        if layers and len(reasons) == len(layers):
            raise PlanError(
                f"all {len(layers)} layers are kept float; keep fewer, so that one is left to quantize"
            )
        kept = tuple(_kept(layers[i], reasons[i]) for i in sorted(reasons))
        return tuple(layer for i, layer in enumerate(layers) if i not in reasons), kept


def _kept(layer: Layer, why: str) -> KeptLayer:
    return KeptLayer(
        name=layer.name, size=layer.size, fingerprint=layer.fingerprint, folded=layer.folded, why=why
    )
