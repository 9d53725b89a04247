"""Operators that a tape and autograd can look into, in place of fused ones."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch
import torch.nn.attention


def plain_products() -> contextlib.AbstractContextManager[None]:
    """Have scaled_dot_product_attention compute with products and a softmax that a tape can see."""
    return torch.nn.attention.sdpa_kernel([torch.nn.attention.SDPBackend.MATH])


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Keep `nn.TransformerEncoder` from its fused path, which neither a tape nor autograd can look into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def plain_masks() -> Iterator[None]:
    """Have transformers make its masks whether or not they mask anything, as it does for exporters.

    Where it looks at them first, each batch takes its own course.
    """
    masking = sys.modules.get("transformers.masking_utils")
    before = getattr(masking, "is_tracing", None)
    if masking is None or before is None:
        yield
        return
    masking.is_tracing = lambda tensor=None: True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        masking.is_tracing = before  # type: ignore[attr-defined]


@contextlib.contextmanager
def plain_recurrence(module: torch.nn.Module) -> Iterator[None]:
    """Have LSTM, GRU and RNN layers compute with one product a step, for modules that have such layers."""
    if not any(isinstance(member, torch.nn.RNNBase) for member in module.modules()):
        yield
        return
    with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
        yield
