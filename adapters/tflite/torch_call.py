"""What an operator in PyTorch is given, and the activation that may be fused to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lampq.adapters.autograd.graph import UnsupportedOperatorError
from lampq.adapters.tflite.flatbuffer import Record

Tensors = Sequence[torch.Tensor | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One operator at work.

    Attributes:
        name: Its name.
        options: Its options.
        inputs: Its inputs.
        constants: The stored values of its inputs; None where they are computed.
        shape: Shape of its first output, as stored.
        dtype: Type of its first output, as the schema calls it.
    """

    name: str
    options: Record | None
    inputs: Tensors
    constants: Sequence[np.ndarray | None]
    shape: tuple[int, ...]
    dtype: str

    def tensor(self, index: int) -> torch.Tensor:
        """An input that must be there."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise UnsupportedOperatorError(f"{self.name} without input {index}")
        return value

    def numbers(self, index: int) -> list[int]:
        """An input of integers, flat: a constant, or what was computed from shapes."""
        value = self.constants[index] if index < len(self.constants) else None
        if value is not None:
            return [int(v) for v in value.reshape(-1)]
        computed = self.tensor(index)
        if computed.is_floating_point():
            raise UnsupportedOperatorError(f"{self.name} with a computed input {index}")
        return [int(v) for v in computed.reshape(-1)]

    def option(self, name: str) -> int:
        """A numeric option."""
        if self.options is None:
            raise UnsupportedOperatorError(f"{self.name} without options")
        return int(getattr(self.options, name))


Function = Callable[[Call], "torch.Tensor | Sequence[torch.Tensor]"]
"""From a call to its outputs."""


def activated(value: torch.Tensor, call: Call) -> torch.Tensor:
    """A result behind the activation that is fused to its operator."""
    code = 0 if call.options is None else call.options.fused_activation_function
    if code not in _ACTIVATIONS:
        raise UnsupportedOperatorError(f"{call.name} with fused activation {code}")
    return _ACTIVATIONS[code](value)


_ACTIVATIONS: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {
    0: lambda x: x,
    1: torch.relu,
    2: lambda x: x.clamp(-1, 1),
    3: lambda x: x.clamp(0, 6),
    4: torch.tanh,
}
