"""`core.readouts.canonical` in PyTorch, for graphs that gradients are taken of."""

from __future__ import annotations

import torch

from lampq.core.readouts.canonical import NEAREST, SMALLEST
from lampq.core.values.head import CLASSES, PROBABILITIES, Head


def canonical(head: Head, output: torch.Tensor) -> torch.Tensor:
    """The output in the form that its role reads, as `core.readouts.canonical.canonical` has it, differentiable."""
    if not head.activated or head.role not in (CLASSES, PROBABILITIES):
        return output
    # Half precision has no room for the smallest probabilities.
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if head.role == CLASSES:
        return output.clamp_min(SMALLEST).log()
    p = output.clamp(NEAREST, 1 - NEAREST)
    return p.log() - torch.log1p(-p)
