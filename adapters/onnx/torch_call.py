"""How an ONNX operator is called in PyTorch: its inputs as tensors, its attributes as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lampq.adapters.autograd.graph import UnsupportedOperatorError

TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float32, 11: torch.float64, 16: torch.float32,
}  # fmt: skip
"""Element types by their number in the format; half precision, in which gradients vanish, is computed in single."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operator at work.

    Attributes:
        name: Its name.
        attributes: Its attributes as plain values, tensors among them as PyTorch's.
        inputs: Its inputs, None where an optional one is absent.
        outputs: How many results are wanted.
        version: Version of the operator set.
    """

    name: str
    attributes: Mapping[str, Any]
    inputs: Sequence[torch.Tensor | None]
    outputs: int
    version: int

    def optional(self, index: int) -> torch.Tensor | None:
        """An input, or None."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int) -> torch.Tensor:
        """An input that must be there."""
        value = self.optional(index)
        if value is None:
            raise UnsupportedOperatorError(f"{self.name} without input {index}")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def numbers(self, index: int, attribute: str) -> list[int] | None:
        """Integers that newer versions take as an input and older ones as an attribute."""
        value = self.optional(index)
        if value is not None:
            return [int(v) for v in value.reshape(-1).tolist()]
        values = self.get(attribute)
        return None if values is None else [int(v) for v in values]


Function = Callable[[Call], "torch.Tensor | Sequence[torch.Tensor]"]
