"""A PyTorch model as the other files of this folder see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch

from lampq.adapters.torch.rounding import Rounding
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.uses import Use
from lampq.core.measuring.model import Model
from lampq.core.values.head import Head


class Replayable(Protocol):
    """What gradients of single samples are taken of."""

    @property
    def runtime(self) -> Runtime:
        """The module made runnable."""

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by name, replacements included."""

    @property
    def spread(self) -> Mapping[str, str]:
        """Inputs that are weights, of which every sample has one -> layer name."""

    @property
    def parameters(self) -> Mapping[str, str]:
        """Layer name -> parameter name, in the order the model uses them, or the name of an input."""

    @property
    def judged(self) -> tuple[Head, ...]:
        """The heads that count."""

    def weight(self, name: str) -> np.ndarray:
        """The weight of a layer, float32, in the shape of its record."""

    def uses(self, name: str) -> tuple[Use, ...]:
        """Where a layer's weight is used."""


class Varied(Model, Replayable, Protocol):
    """A module with some weights replaced, and some inputs of layers rounded.

    Attributes:
        rounding: Which activations are rounded.
        source: The text it was read with.
        hugging_face: Whether it can be written as a Hugging Face directory.
        in_folder: Whether bytes are those of such a directory.
        dtype: Type of tensors that stay floating point in what is written; None keeps that in memory.
    """

    rounding: Rounding
    source: str
    hugging_face: bool
    in_folder: bool
    dtype: torch.dtype | None

    @property
    def module(self) -> torch.nn.Module:
        """The module, with the weights it was read with."""

    def as_stored(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor in the type that it has on disk where it stays as it is."""
