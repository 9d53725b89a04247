"""PyTorch models: `read` gives a `TorchModel`, `load_quantized` a module from a file lampq wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq.adapters.torch.format import TORCH

if TYPE_CHECKING:
    import torch

    from lampq.adapters.torch.model import TorchModel


def read(path: str | Path | torch.nn.Module, **options: Any) -> TorchModel:
    """Read a PyTorch model; see `lampq.adapters.torch.reading.read` for the options.

    Raises:
        MissingExtraError: torch or safetensors is not installed.
        AdapterError: The model cannot be read.
    """
    with TORCH.importing():
        from lampq.adapters.torch.reading import read as read_torch
    return read_torch(path, **options)


def load_quantized(path: str | Path, model: Any = None, *, int8: bool = False) -> torch.nn.Module:
    """A module with quantized weights; see `lampq.adapters.torch.rebuild.load_quantized`.

    Raises:
        MissingExtraError: torch or safetensors is not installed.
        AdapterError: The file is damaged, or the model is not given or does not fit.
    """
    with TORCH.importing():
        from lampq.adapters.torch.rebuild import load_quantized as load
    return load(path, model, int8=int8)
