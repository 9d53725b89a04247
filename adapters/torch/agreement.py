"""How far two runs of a model are apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from lampq.adapters.agreement import difference

# Outputs that are zero to rounding.
_FLOOR = 1e-12


def disagreement(expected: Mapping[str, torch.Tensor], actual: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """The floating point output that is furthest off, and by how much, relative to its largest entry.

    Infinite and undefined entries must be the same in both; where they are not, or shapes differ, it is infinite.

    Returns:
        The name of the output, and the difference; "" and 0 where there is no such output.
    """
    worst, name = 0.0, ""
    for key, tensor in expected.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        error = difference(np.asarray(actual[key]), tensor.cpu().double().numpy(), floor=_FLOOR)
        if not name or not error <= worst:
            worst, name = error, key
    return name, worst


def arrays(outputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Outputs as arrays, float64 where they are floating point."""
    return {
        name: (tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu()).numpy()
        for name, tensor in outputs.items()
    }
