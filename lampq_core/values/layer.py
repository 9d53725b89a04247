"""One quantizable weight, as a record that needs no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.gaussian import Gaussian
from lampq.core.values.messages import described

# Below this many weights the scales outweigh what fewer bits save.
SMALLEST = 64

KINDS = ("qkv", "q", "k", "v", "proj", "fc1", "fc2", "patch_embed", "head", "embedding", "conv", "linear")

LARGEST_COUNT = 2**44
"""Weights, bytes or multiply-accumulates of one layer; sums over thousands of layers, times bits, fit 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One quantizable weight.

    Attributes:
        name: The adapter's address of the weight, a module path where the format keeps one.
        kind: One of `KINDS`.
        shape: Shape of the stored array.
        channel_axis: The axis of `shape` that holds the output channels; each gets its own scale.
        size: Number of weights.
        weight: Statistics per output channel.
        fingerprint: Identity of the weight across formats.
        folded: Identity of the weight with the scale of the normalization behind it folded in, as exporters do,
            or None.
        macs: Multiply-accumulates per sample, or None where unknown.
        activation: Statistics of the layer's input (whole tensor), or None where not measured.
        fisher: Trace of the Fisher information of the weights, in nats, or None.
        activation_fisher: The same of the layer's input, or None.
        shares: Further places in the model that use this same weight.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    channel_axis: int
    size: int
    weight: Gaussian
    fingerprint: Fingerprint
    folded: Fingerprint | None = None
    macs: int | None = None
    activation: Gaussian | None = None
    fisher: float | None = None
    activation_fisher: float | None = None
    shares: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise RecordError("a layer needs a name")
        if self.kind not in KINDS:
            raise RecordError(f"layer {self.name}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        if self.size == 0 or 0 in self.shape:
            raise RecordError(f"layer {self.name}: no weights, its shape is {self.shape}; leave it out")
        if self.size != int(np.prod(self.shape, dtype=np.int64)) or self.size <= 0:
            raise RecordError(f"layer {self.name}: size {self.size} does not fit shape {self.shape}")
        if not 0 <= self.channel_axis < len(self.shape):
            raise RecordError(f"layer {self.name}: no axis {self.channel_axis} in shape {self.shape}")
        if self.macs is not None and not 0 <= self.macs <= LARGEST_COUNT:
            raise RecordError(f"layer {self.name}: macs is {self.macs}; it is damaged")
        if self.size > LARGEST_COUNT:
            raise RecordError(f"layer {self.name}: size is {self.size}; it is damaged")
        for name in ("fisher", "activation_fisher"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise RecordError(f"layer {self.name}: {name} is {value}; a trace is finite and not negative")

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.shape[self.channel_axis]

    @classmethod
    def from_weight(
        cls,
        name: str,
        weight: np.ndarray,
        *,
        kind: str,
        channel_axis: int,
        macs: int | None = None,
        shares: tuple[str, ...] = (),
    ) -> Layer:
        """Measure a weight.

        Raises:
            RecordError: The weight is empty or holds NaN or infinity; the message names the layer.
        """
        try:
            statistics = Gaussian.from_array(weight, channel_axis=channel_axis)
        except RecordError as err:
            raise RecordError(f"layer {name}: {err}") from err
        return cls(
            name=name,
            kind=kind,
            shape=tuple(int(d) for d in weight.shape),
            channel_axis=channel_axis,
            size=int(weight.size),
            weight=statistics,
            fingerprint=Fingerprint.from_array(weight),
            macs=macs,
            shares=shares,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "channel_axis": self.channel_axis,
            "size": self.size,
            "macs": self.macs,
            "fisher": self.fisher,
            "activation_fisher": self.activation_fisher,
            "shares": list(self.shares),
            "fingerprint": self.fingerprint.to_text(),
            **({} if self.folded is None else {"folded": self.folded.to_text()}),
            "weight": self.weight.to_json(),
            "activation": self.activation.to_json() if self.activation else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        """The inverse of `to_json`.

        Raises:
            RecordError: A field is missing, of the wrong type, or impossible.
        """
        try:
            return cls(
                name=str(data["name"]),
                kind=str(data["kind"]),
                shape=tuple(int(d) for d in data["shape"]),
                channel_axis=int(data["channel_axis"]),
                size=int(data["size"]),
                macs=None if data.get("macs") is None else int(data["macs"]),
                fisher=None if data.get("fisher") is None else float(data["fisher"]),
                activation_fisher=(
                    None if data.get("activation_fisher") is None else float(data["activation_fisher"])
                ),
                shares=tuple(str(s) for s in data.get("shares", ())),
                fingerprint=Fingerprint.from_text(str(data["fingerprint"])),
                folded=None if data.get("folded") is None else Fingerprint.from_text(str(data["folded"])),
                weight=Gaussian.from_json(data["weight"]),
                activation=Gaussian.from_json(data["activation"]) if data.get("activation") else None,
            )
        except RecordError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise RecordError(f"malformed layer record: {described(err)}") from err


def worth_quantizing(shape: Sequence[int]) -> bool:
    """Whether a weight of a shape is large enough for fewer bits to save more than its scales take.

    All adapters ask this, so that a model has the same layers in every format.

    >>> worth_quantizing((8, 8)), worth_quantizing((7, 9))
    (True, False)
    """
    return math.prod(shape) >= SMALLEST
