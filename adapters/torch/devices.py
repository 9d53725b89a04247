"""Devices and precisions by name, as PyTorch has them."""

from __future__ import annotations

import warnings

import torch

from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed

AUTO = "auto"
_PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(name: str) -> torch.device:
    """A device by name; `auto` is a GPU where there is one.

    Raises:
        AdapterError: There is none of the name here; lists those that there are.
    """
    present = devices()
    if name == AUTO:
        name = "cuda" if "cuda" in present else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    number = 0 if device is None or device.index is None else device.index
    few = device is not None and device.type == "cuda" and number >= torch.cuda.device_count()
    if device is None or device.type not in present or few:
        raise AdapterError(f"device {name!r}: PyTorch has {listed(present)} here")
    if device.type == "cuda":
        # The first product of each of autograd's threads says so, and then does what it says.
        warnings.filterwarnings("ignore", "Attempting to run cuBLAS", UserWarning)
    return device


def devices() -> tuple[str, ...]:
    """Kinds of devices that there are here."""
    accelerators = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
    return ("cpu", *(name for name, present in accelerators if present))


def precision_of(name: str | torch.dtype | None) -> torch.dtype | None:
    """The lower precision of matrix products by name; None: they are as they are.

    Raises:
        AdapterError: There is none of the name.
    """
    if name is None or isinstance(name, torch.dtype):
        return name
    if name not in _PRECISIONS:
        raise AdapterError(f"precision {name!r} is none of {', '.join(_PRECISIONS)}")
    return _PRECISIONS[name]


def widest(tensor: torch.Tensor) -> torch.dtype:
    """The widest floating type that the device of a tensor has."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64
