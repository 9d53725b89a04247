"""A weight that a file holds quantized, read back."""

from __future__ import annotations

from dataclasses import dataclass

from lampq.core.values.layer import Layer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredWeight:
    """A quantized weight of a file.

    Attributes:
        layer: Its record; statistics and fingerprint are of the rounded values.
        weight_bits: Width of its codes.
        activation_bits: Width of its input, or None for float.
        payload_bytes: Bytes of codes and scales.
        container: `bitplane` (as few bits as the format allows) or `int8`.
    """

    layer: Layer
    weight_bits: int
    payload_bytes: int
    container: str
    activation_bits: int | None = None
