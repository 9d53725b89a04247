"""A Hugging Face model that was loaded quantized, as the float model that its weights stand for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from lampq.core.values.errors import AdapterError


def plain(path: Path, module: Any) -> torch.nn.Module:
    """A module of the same class that has nothing of a quantizer about it.

    Args:
        path: Where it was loaded from, for messages.
        module: The loaded module, its weights unpacked.

    Raises:
        AdapterError: A weight was not unpacked.
    """
    config = copy.deepcopy(module.config)
    del config.quantization_config
    with torch.random.fork_rng(devices=[]):
        fresh: torch.nn.Module = type(module)(config)
    held, wanted = module.state_dict(), fresh.state_dict()
    lost = [name for name in wanted if name not in held or held[name].shape != wanted[name].shape]
    if lost:
        raise AdapterError(f"{path}: {len(lost)} weights cannot be read as floats ({', '.join(lost[:3])})")
    fresh.load_state_dict({name: held[name] for name in wanted})
    return fresh.eval()
