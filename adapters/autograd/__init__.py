"""Gradients of models of other formats, whose graphs are rebuilt in PyTorch.

An adapter gives a `graph.Graph`, its graph as a function in PyTorch with the weights as leaves; `rebuilt.Rebuilt` does
the rest. Modules have the faster `lampq.adapters.torch.fisher` and `gradient_rows`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from lampq.adapters.torch.format import TORCH


def importing() -> AbstractContextManager[None]:
    """Turns a missing PyTorch into the error that names it, as long as the block lasts; see `ModelFormat.importing`."""
    return TORCH.importing()
