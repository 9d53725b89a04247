"""How a module runs: device, precision, samples at a time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from lampq.adapters.torch.devices import device_of, precision_of
from lampq.core.values.choices import refuse_unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a module runs.

    Attributes:
        device: `cpu`, `cuda`, `mps`, or `auto`: a GPU where there is one.
        autocast: Lower precision for matrix products (torch.bfloat16, torch.float16), or None.
        batch_size: Samples per run.
    """

    device: str = "auto"
    autocast: torch.dtype | None = None
    batch_size: int = 64

    @classmethod
    def of(cls, **choices: Any) -> Execution:
        """From fields by name, with devices and types by theirs.

        Raises:
            RecordError: There is no such field.
            AdapterError: There is no such device or type.
        """
        refuse_unknown(choices, (field.name for field in dataclasses.fields(cls)), "reading a PyTorch model")
        execution = cls(**choices)
        device, autocast = str(device_of(execution.device)), precision_of(execution.autocast)
        return dataclasses.replace(execution, device=device, autocast=autocast)
