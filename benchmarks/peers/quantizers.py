"""Weight quantizers that plans are searched with and judged by: ours, and those of ModelOpt."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import modelopt.torch.quantization as mtq
import numpy as np
import torch
from modelopt.torch.quantization.nn import TensorQuantizer, register_quant_backend

from lampq.adapters.torch.model import TorchModel
from lampq.core.quantizing.quantizer import as_rows, from_rows, quantize

COMMON, MAX, MSE = "common", "max", "mse"
NAMES = {
    COMMON: "common (symmetric, per channel, clipped at least squared error)",
    MAX: "ModelOpt, `max` calibration (symmetric, per channel, never clipped; its default)",
    MSE: "ModelOpt, `mse` calibration (symmetric, per channel, clipped)",
}

Weights = Mapping[tuple[str, int], np.ndarray]
"""(layer, bits) -> the quantized weight as floats, in the layer's shape."""


def quantized_weights(name: str, model: TorchModel, widths: Sequence[int]) -> Weights:
    """Every layer at every width with one of the quantizers."""
    if name == COMMON:
        return {
            (layer.name, bits): _common(model.weight(layer.name), layer.channel_axis, bits)
            for layer in model.layers()
            for bits in widths
        }
    found = {}
    for bits in widths:
        module = mtq.quantize(copy.deepcopy(model.module), format_of(name, bits))
        for layer in model.layers():
            part = module.get_submodule(layer.name)
            with torch.no_grad():
                found[layer.name, bits] = part.weight_quantizer(part.weight).numpy().copy()
    return found


def format_of(name: str, bits: int) -> dict[str, Any]:
    """A weights-only configuration of ModelOpt for one of the quantizers."""
    weight: dict[str, Any] = {"num_bits": bits, "axis": 0}
    if name == COMMON:
        weight["backend"] = _BACKEND
    return {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": weight},
        ],
        "algorithm": MAX if name == COMMON else name,
    }


def register_common() -> None:
    """Make the common quantizer one of ModelOpt's backends, so that its search can use it too."""
    kept: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def entry(weight: torch.Tensor, quantizer: TensorQuantizer) -> torch.Tensor:
        key = (weight.data_ptr(), quantizer.num_bits)
        if key not in kept:
            array = _common(weight.detach().numpy(), 0, quantizer.num_bits)
            # The weight is kept with its result, so that no other can take its address.
            kept[key] = (weight.detach(), torch.from_numpy(array))
        return kept[key][1]

    register_quant_backend(_BACKEND, entry)


_BACKEND = "lampq"


def _common(weight: np.ndarray, channel_axis: int, bits: int) -> np.ndarray:
    rows = quantize(as_rows(weight, channel_axis), bits)
    return from_rows(rows.dequantized(), weight.shape, channel_axis)
