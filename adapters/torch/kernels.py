"""Operators that a tape and autograd can look into, in place of fused ones."""

from __future__ import annotations

import contextlib
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
def plain_recurrence(module: torch.nn.Module) -> Iterator[None]:
    """Have LSTM, GRU and RNN layers compute with one product a step, for modules that have such layers."""
    if not any(isinstance(member, torch.nn.RNNBase) for member in module.modules()):
        yield
        return
    with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
        yield
