"""Exact rewrites of normalizations and the layers behind them (`core.values.norm_rewrite`), found on the tape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lampq.adapters.torch import agreement
from lampq.adapters.torch.runtime import Recording
from lampq.adapters.torch.tape import Named, Operation, Tape, Values, tensors
from lampq.adapters.torch.variant import Variant
from lampq.core.treatments.rewrites import SeenNorm
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.norm_rewrite import NormRewrite

_NORM = "aten::native_layer_norm"
# A rewrite moves outputs by the rounding of float32 and no more.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Norm:
    """A normalization on a tape.

    Attributes:
        name: Path of its module, or its place on the tape.
        operation: Index of its operator.
        gamma: Name of its scale, where it has one.
        beta: Name of its offset.
        layers: (weight, bias) of the layers that read it.
        why_not: What stands against rewriting it, or empty.
    """

    name: str
    operation: int
    gamma: str = ""
    beta: str = ""
    layers: tuple[tuple[str, str], ...] = ()
    why_not: str = ""


def seen_norms(model: Variant, batch: Batch) -> tuple[SeenNorm, ...]:
    """Normalizations in the order the model runs them, and the ranges of their channels.

    Args:
        model: The float model.
        batch: Calibration inputs, samples first.
    """
    ends: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    norms: tuple[_Norm, ...] = ()
    for chunk in model.runtime.chunks(batch):
        recording = model.runtime.recording(chunk.inputs, model.tensors)
        norms = tuple(_norms(recording))
        for name, low, high in _ranges(recording.tape, norms, model, chunk.inputs):
            before = ends.get(name, (low, high))
            ends[name] = np.minimum(before[0], low), np.maximum(before[1], high)
    layers = {parameter: name for name, parameter in model.parameters.items()}
    return tuple(
        SeenNorm(
            name=norm.name,
            layers=tuple(layers[weight] for weight, _ in norm.layers),
            low=ends[norm.name][0],
            high=ends[norm.name][1],
            why_not=norm.why_not,
        )
        for norm in norms
    )


def rewritten(model: Variant, rewrites: Sequence[NormRewrite]) -> dict[str, torch.Tensor]:
    """The model's tensors with some normalizations rewritten; it computes the same with them.

    Args:
        model: The model.
        rewrites: Each of another normalization.

    Raises:
        AdapterError: One is not in the model, cannot be rewritten exactly, or has other channels; names it.
    """
    example = model.runtime.example
    recording = model.runtime.recording(example, model.tensors)
    norms = {norm.name: norm for norm in _norms(recording)}
    changed = dict(model.tensors)
    for rewrite in rewrites:
        norm = norms.get(rewrite.norm)
        why = "the model has no such normalization" if norm is None else norm.why_not
        if norm is None or why:
            raise AdapterError(f"{model.runtime.name}: {rewrite.norm} cannot be rewritten: {why}")
        channels = changed[norm.gamma].numel()
        if len(rewrite.ratio) != channels:
            raise AdapterError(
                f"{model.runtime.name}: the rewrite of {rewrite.norm} is of {len(rewrite.ratio)} channels, and the "
                f"model has {channels}"
            )
        _fold(changed, rewrite, norm)
    actual = agreement.arrays(model.runtime.outputs(changed, example))
    output, error = agreement.disagreement(model.runtime.outputs(model.tensors, example), actual)
    if not error <= _TOLERANCE:
        raise AdapterError(
            f"{model.runtime.name}: rewriting {', '.join(r.norm for r in rewrites[:3])} would change the float model: "
            f"{output} is off by {error:.2g} of its range; leave out the rewrites"
        )
    return changed


def _norms(recording: Recording) -> Iterator[_Norm]:
    tape = recording.tape
    names = {slot: name for name, slot in tape.weights.items()}
    readers = Counter(slot for operation in tape.operations for slot in {slot for _, slot in operation.reads})
    for index, operation in enumerate(tape.operations):
        if operation.name != _NORM:
            continue
        name = operation.module or f"operator {index}"
        read = [names[slot] for _, slot in operation.reads[1:] if slot in names]
        if len(read) != 2:
            yield _Norm(name=name, operation=index, why_not="it has no scale and offset to fold into")
            continue
        gamma, beta = read
        layers = _readers(recording, operation)
        own = [gamma, beta] + ([] if isinstance(layers, str) else [part for pair in layers for part in pair])
        shared = next((part for part in own if readers[tape.weights[part]] > 1), None)
        if isinstance(layers, str):
            yield _Norm(name=name, operation=index, why_not=layers)
        elif shared is not None:
            yield _Norm(name=name, operation=index, why_not=f"{shared} is used elsewhere too")
        else:
            yield _Norm(name=name, operation=index, gamma=gamma, beta=beta, layers=tuple(layers))


def _readers(recording: Recording, norm: Operation) -> list[tuple[str, str]] | str:
    """(weight, bias) of the layers that read a normalization and nothing else does, or what stands against it."""
    tape, uses = recording.tape, {use.operation: use for use, _ in recording.uses}
    names = {slot: name for name, slot in tape.weights.items()}
    channels, same = norm.shape[-1], {norm.writes[0]}
    layers = []
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
        elif operation.rearranges and operation.shape[-1:] == (channels,):
            same.update(operation.writes)
        else:
            where = operation.module or "the model"
            return f"{operation.name.removeprefix('aten::')} in {where} reads it too"
    if same.intersection(tape.outputs.values()):
        return "it is an output of the model"
    return layers or "no layer reads it"


def _ranges(
    tape: Tape, norms: Sequence[_Norm], model: Variant, inputs: Named
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name of a normalization, and the smallest and largest value of each of its channels."""
    names = {norm.operation: norm.name for norm in norms}
    ends: list[tuple[str, np.ndarray, np.ndarray]] = []

    def call(index: int, operation: Operation, values: Values) -> object:
        result = operation.call(values, {})
        if index in names:
            rows = tensors(result)[0].float().reshape(-1, operation.shape[-1])
            ends.append((names[index], rows.amin(0).cpu().numpy(), rows.amax(0).cpu().numpy()))
        return result

    with torch.no_grad():
        tape.run(model.tensors, inputs, call)
    yield from ends


def _fold(changed: dict[str, torch.Tensor], rewrite: NormRewrite, norm: _Norm) -> None:
    def put(names: tuple[str, str], arrays: tuple[np.ndarray, np.ndarray]) -> None:
        for name, array in zip(names, arrays, strict=True):
            old = changed[name]
            changed[name] = torch.from_numpy(array).reshape(old.shape).to(old.device, old.dtype)

    def get(name: str) -> np.ndarray:
        return changed[name].detach().double().cpu().numpy()

    affine = norm.gamma, norm.beta
    put(affine, rewrite.of_norm(get(norm.gamma).reshape(-1), get(norm.beta).reshape(-1)))
    for pair in norm.layers:
        put(pair, rewrite.of_layer(get(pair[0]), get(pair[1])))
