"""Exact rewrites of normalizations and the layers behind them, in place, before a module is quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from lampq.adapters.torch.runtime import Recording
from lampq.adapters.torch.tape import Operation, Tape
from lampq.adapters.torch.variant import Varied
from lampq.core.treatments.rewrites import Rewrite
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError

Evening = Callable[[np.ndarray, np.ndarray], Rewrite]
"""From the smallest and largest value of each channel to a rewrite."""

_NORM = "aten::native_layer_norm"


def rewrite_norms(model: Varied, batch: Batch, evening: Evening) -> dict[str, str]:
    """Even out the channels behind every normalization that layers alone read; the module computes the same.

    Args:
        model: The float model; parameters of its module are changed.
        batch: Calibration inputs of one shape, samples first.
        evening: `core.treatments.rewrites.one_range` or `clipped`.

    Returns:
        Normalization (its weight's name) that was left alone -> why.

    Raises:
        AdapterError: None can be rewritten; says why.
    """
    chunk = next(iter(model.runtime.chunks(batch)))
    recording = model.runtime.recording(chunk.inputs, model.tensors)
    names = {slot: name for name, slot in recording.tape.weights.items()}
    left: dict[str, str] = {}
    count = 0
    for index, operation in enumerate(recording.tape.operations):
        if operation.name != _NORM:
            continue
        place = operation.module or f"operator {index}"
        gamma, beta = _affine(operation, names)
        if gamma is None or beta is None:
            left[place] = "it has no scale and offset to fold into"
            continue
        layers = _readers(recording, operation.writes[0])
        if isinstance(layers, str):
            left[gamma] = layers
            continue
        values = _values(recording.tape, model.tensors, chunk.inputs, index)
        rows = values.reshape(-1, values.shape[-1])
        _fold(model, evening(rows.min(axis=0), rows.max(axis=0)), gamma, beta, layers)
        count += 1
    if not count:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left.items())[:3]) or "it has none"
        raise AdapterError(f"{model.runtime.name}: no normalization can be rewritten exactly ({why})")
    return left


def _affine(operation: Operation, names: Mapping[int, str]) -> tuple[str | None, str | None]:
    """Names of a layer norm's scale and offset, which it reads behind its input; None where it has none."""
    read = [names.get(slot) for _, slot in operation.reads[1:]]
    return (read[0], read[1]) if len(read) == 2 else (None, None)


def _readers(recording: Recording, slot: int) -> list[tuple[str, str]] | str:
    """(weight, bias) of the layers that read a normalization and nothing else does, or what stands against it."""
    tape, uses = recording.tape, {use.operation: use for use, _ in recording.uses}
    names = {slot: name for name, slot in tape.weights.items()}
    same, layers = {slot}, []
    if slot in tape.outputs.values():
        return "it is an output of the model"
    for index, operation in enumerate(tape.operations):
        if not same.intersection(read for _, read in operation.reads):
            continue
        use = uses.get(index)
        if use is not None and use.form == "linear" and operation.slot(use.data) in same and not use.turned:
            biases = [names.get(read) for leaf, read in operation.reads if leaf not in (use.data, use.factor)]
            if len(biases) != 1 or biases[0] is None or use.channel_axis != 0:
                return f"the layer {use.weight} behind it has no bias of its own"
            if sum(other.weight == use.weight for other, _ in recording.uses) > 1:
                return f"the layer {use.weight} behind it is used elsewhere too"
            layers.append((use.weight, biases[0]))
        elif operation.rearranges and operation.shape[-1:] != ():
            same.update(operation.writes)
        else:
            where = operation.module or "the model"
            return f"{operation.name.removeprefix('aten::')} in {where} reads it too"
    return layers or "no layer reads it"


def _values(
    tape: Tape, weights: Mapping[str, torch.Tensor], inputs: Mapping[str, torch.Tensor], index: int
) -> np.ndarray:
    """What a normalization gives."""
    with torch.no_grad():
        values = tape.play(tape.start(weights, inputs), end=index + 1)
    return values[tape.operations[index].writes[0]].float().cpu().numpy()


def _fold(model: Varied, rewrite: Rewrite, gamma: str, beta: str, layers: list[tuple[str, str]]) -> None:
    def put(name: str, array: np.ndarray) -> None:
        tensor = model.tensors[name]
        tensor.copy_(torch.from_numpy(array).to(tensor.device, tensor.dtype))

    def get(name: str) -> np.ndarray:
        return model.tensors[name].double().cpu().numpy()

    scale, offset = rewrite.of_norm(get(gamma), get(beta))
    put(gamma, scale)
    put(beta, offset)
    for weight, bias in layers:
        folded, moved = rewrite.of_layer(get(weight), get(bias))
        put(weight, folded)
        put(bias, moved)
