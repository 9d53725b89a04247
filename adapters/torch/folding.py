"""What a weight becomes when the batch normalization behind it is folded into it.

Exporters multiply a layer by the scale of the normalization that alone reads its output. The plan of a model must know
its layers in such a file too, where nothing is left of the normalization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lampq.adapters.torch.tape import Operation, Tape
from lampq.adapters.torch.uses import Use

NORMALIZATIONS = frozenset(
    {
        "aten::batch_norm",
        "aten::cudnn_batch_norm",
        "aten::native_batch_norm",
        "aten::_native_batch_norm_legit_no_training",
    }
)
"""Operators of batch normalization."""


def scales(
    tape: Tape, uses: Mapping[str, Sequence[Use]], weights: Mapping[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """For each weight the scale of the normalization that alone reads its only product; others are left out.

    Args:
        tape: The forward pass.
        uses: Where it uses each weight, by parameter.
        weights: Parameters and buffers by name.

    Returns:
        By parameter: float64, of the weight's number of axes, one entry per output channel.
    """
    readers: dict[int, list[Operation]] = {}
    for operation in tape.operations:
        for slot in dict.fromkeys(slot for _, slot in operation.reads):
            readers.setdefault(slot, []).append(operation)
    by_name = {}
    for name, group in uses.items():
        product = tape.operations[group[0].operation].writes[0]
        behind = readers.get(product, [])
        if len(group) > 1 or len(behind) != 1 or product in tape.outputs.values():
            continue
        scale = _scale(tape, behind[0], weights) if behind[0].name in NORMALIZATIONS else None
        if scale is not None and scale.size == weights[name].shape[group[0].channel_axis]:
            shape = [1] * weights[name].dim()
            shape[group[0].channel_axis] = -1
            by_name[name] = scale.reshape(shape)
    return by_name


def _scale(tape: Tape, normalization: Operation, weights: Mapping[str, torch.Tensor]) -> np.ndarray | None:
    """What a normalization multiplies each channel by, float64; None where it depends on the batch."""
    leaf = normalization.named_leaves()
    if "training" in leaf and normalization.leaves[leaf["training"]]:
        return None
    names = {slot: name for name, slot in tape.weights.items()}

    def array(argument: str) -> np.ndarray | None:
        slot = None if leaf.get(argument) is None else normalization.slot(leaf[argument])
        return None if slot not in names else weights[names[slot]].detach().double().cpu().numpy()

    factor, variance = array("weight"), array("running_var")
    epsilon = next((normalization.leaves[leaf[name]] for name in ("eps", "epsilon") if name in leaf), None)
    if variance is None or epsilon is None:
        return None
    return (1.0 if factor is None else factor) / np.sqrt(variance + float(epsilon))
