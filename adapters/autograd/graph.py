"""A model rebuilt as a function in PyTorch, and whether it is to be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch

from lampq.adapters.agreement import difference
from lampq.core.values.batch import Batch

# Float32 kernels of two libraries differ by rounding alone.
AGREEMENT = 1e-3
# Outputs that are zero to rounding.
_FLOOR = 1e-6


class UnsupportedOperatorError(Exception):
    """An operator, or a use of one, that has no differentiable form here."""


class Graph(Protocol):
    """A model as a function of its inputs, with its weights as leaves.

    Attributes:
        weights: Layer name -> leaf, float32, requiring gradients, in the shape of the layer's record; layers that no
            judged output depends on may be missing.
    """

    weights: dict[str, torch.Tensor]

    def __call__(
        self, inputs: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor] | None = None
    ) -> Mapping[str, torch.Tensor]:
        """The judged outputs of a batch by name, canonical, samples first.

        Args:
            inputs: By name.
            weights: In place of the leaves, by layer.

        Raises:
            UnsupportedOperatorError: An operator is used in a way that has no form here.
        """


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    """The arrays of a batch of one group, as tensors of their own."""
    return {name: torch.from_numpy(np.array(array)) for name, array in batch.groups[0].items()}


def disagreement(graph: Graph, batch: Batch, expected: Batch, *, tolerance: float = AGREEMENT) -> str:
    """Why a rebuilt graph's outputs are not to be believed, or empty.

    Args:
        graph: The rebuilt model.
        batch: A batch of one shape.
        expected: What the format's own runtime makes of it.
        tolerance: Largest difference of an output, relative to its largest entry.
    """
    try:
        with torch.no_grad():
            outputs = graph(tensors_of(batch))
    except UnsupportedOperatorError as err:
        return f"{err} has no differentiable form here"
    # A wrong guess about an operator shows in many ways; each means the same.
    except (RuntimeError, IndexError, ValueError, TypeError) as err:
        return f"the interpreter fails: {(str(err).splitlines() or [''])[0][:100]}"
    for name, right in expected.groups[0].items():
        array = outputs[name].numpy()
        if array.shape != right.shape:
            return f"the interpreter's {name} has shape {array.shape}, the runtime's {right.shape}"
        error = difference(array, right, floor=_FLOOR)
        if error > tolerance:
            return f"the interpreter's {name} differs from the runtime's by {error:.2g} of its range"
    return ""
