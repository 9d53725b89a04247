"""Where a PyTorch model comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Provenance:
    """What a model was read from.

    Attributes:
        path: Where it was read from.
        source: The text it was read with.
        files: The files that hold its weights.
        stored: Layer name -> (weight bits, activation bits) of weights that are stored quantized.
        hugging_face: Whether it comes from a Hugging Face directory and is written as one.
        dtype: Type of its tensors on disk, where they are computed with in a wider one.
    """

    path: Path
    source: str = ""
    files: tuple[Path, ...] = ()
    stored: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    hugging_face: bool = False
    dtype: torch.dtype | None = None

    def as_stored(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor in the type that it has on disk where it stays as it is."""
        return tensor if self.dtype is None or not tensor.is_floating_point() else tensor.to(self.dtype)

    def file_bytes(self) -> int | None:
        """Bytes of the files that hold the weights; None where it comes from no file."""
        return sum(file.stat().st_size for file in self.files) if self.files else None
