"""Forward passes on a tape that show what normalizations and attentions make of an input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lampq.adapters.autograd.canonical import canonical
from lampq.adapters.autograd.graph import Graph
from lampq.adapters.synthetic.observation import Normalized, Observation
from lampq.adapters.torch.folding import NORMALIZATIONS
from lampq.adapters.torch.outputs import sample_rows
from lampq.adapters.torch.recorder import record
from lampq.adapters.torch.rounding import PRODUCTS, behind_softmax
from lampq.adapters.torch.tape import Named, Operation, Tape, Values, tensors
from lampq.adapters.torch.variant import Variant
from lampq.core.values.errors import AdapterError

_LAYER_NORM = "aten::native_layer_norm"
# Fewer channels are those of pictures, whose preprocessing in the model is no normalization of what is inside.
_FEWEST_CHANNELS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Affine:
    """Where a normalization scales and shifts: the channels' axis of its result, counted from the end, and slots."""

    axis: int
    scale: int
    shift: int


class TapeObserver:
    """See `lampq.adapters.synthetic.observation.Observer`.

    Args:
        tape: The tape for inputs of some shape.
        weights: What it is run with.
        outputs: From its outputs and the number of samples to those that are judged.
        most: Samples that it takes at a time, or None: any number.
        device: Where it runs.
    """

    def __init__(
        self,
        tape: Callable[[Named], Tape],
        weights: Named,
        outputs: Callable[[Named, int], Mapping[str, torch.Tensor]],
        most: int | None,
        device: torch.device,
    ) -> None:
        self._tape, self._weights, self._outputs = tape, weights, outputs
        self.most, self.device = most, device
        self._places: dict[int, tuple[Tape, Mapping[int, _Affine], frozenset[int]]] = {}

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Observation:
        """Run samples, as many as the model takes at a time."""
        samples = len(next(iter(inputs.values())))
        tape = self._taped(inputs)
        if id(tape) not in self._places:
            # With the tape itself, so that no other gets its number.
            self._places[id(tape)] = (tape, _normalizations(tape, self._weights), _mixing(tape))
        _, affine, mixing = self._places[id(tape)]
        normalized: list[Normalized] = []
        attended: list[torch.Tensor] = []

        def call(index: int, operation: Operation, values: Values) -> Any:
            result = operation.call(values, {})
            if index in affine:
                normalized.extend(_normalized(affine[index], values, tensors(result)[0], samples))
            elif index in mixing:
                attended.extend(_by_token(tensors(result)[0], samples))
            return result

        outputs = self._outputs(tape.run(self._weights, inputs, call), samples)
        return Observation(outputs=outputs, normalized=normalized, attended=attended)

    def pass_bytes(self, inputs: Mapping[str, torch.Tensor]) -> int:
        """About what gradients keep of a pass of these samples, bytes."""
        return self._taped(inputs).result_bytes

    def _taped(self, inputs: Mapping[str, torch.Tensor]) -> Tape:
        return self._tape({name: tensor.detach() for name, tensor in inputs.items()})


def module_observer(model: Variant) -> TapeObserver:
    """Observes a module."""
    runtime = model.runtime

    def tape(inputs: Named) -> Tape:
        try:
            return runtime.recording(inputs, model.tensors, grad=True, products=True).tape
        except AdapterError:
            # A fused attention without a plain form: only its inside stays hidden.
            return runtime.recording(inputs, model.tensors, grad=True).tape

    def outputs(raw: Named, samples: int) -> dict[str, torch.Tensor]:
        return {
            head.name: canonical(head, sample_rows(raw[head.name], samples, head.name, runtime.name))
            for head in model.judged
        }

    return TapeObserver(tape, model.tensors, outputs, runtime.fixed_batch, runtime.device)


def graph_observer(graph: Graph, most: int | None) -> TapeObserver:
    """Observes a model of another format that was rebuilt in PyTorch.

    Args:
        graph: The rebuilt model.
        most: Samples that it takes at a time, or None: any number.
    """
    tapes: dict[tuple[torch.Size, ...], Tape] = {}

    def tape(inputs: Named) -> Tape:
        shapes = tuple(tensor.shape for tensor in inputs.values())
        if shapes not in tapes:
            with torch.no_grad():
                tapes[shapes], _ = record(lambda _, named: graph(named), {}, inputs)
        return tapes[shapes]

    return TapeObserver(tape, {}, lambda raw, samples: raw, most, torch.device("cpu"))


def _normalizations(tape: Tape, weights: Named) -> dict[int, _Affine]:
    """Index of the operator that gives the result of a normalization -> its scale and shift.

    Exporters write normalizations as single steps: what multiplies by one constant and adds another, channel by
    channel, is the end of one.
    """
    constant = {**{slot: weights[name] for name, slot in tape.weights.items()}, **tape.constants}
    scaled: dict[int, tuple[int, int]] = {}
    places = {}
    for index, operation in enumerate(tape.operations):
        if operation.name == _LAYER_NORM or operation.name in NORMALIZATIONS:
            leaf = operation.named_leaves()
            scale, shift = (operation.slot(leaf[name]) for name in ("weight", "bias"))
            if scale in constant and shift in constant and constant[scale].dim() == 1:
                axis = -1 if operation.name == _LAYER_NORM else 1 - len(operation.shape)
                places[index] = _Affine(axis=axis, scale=scale, shift=shift)
            continue
        slots = [slot for _, slot in operation.reads]
        vectors = [slot for slot in slots if slot in constant and _channels(constant[slot]) is not None]
        if len(slots) != 2 or len(vectors) != 1:
            continue
        vector, other = vectors[0], slots[0] if slots[1] == vectors[0] else slots[1]
        channels = _channels(constant[vector])
        assert channels is not None  # It is a vector.
        axis = channels
        if operation.name == "aten::mul":
            scaled[operation.writes[0]] = (vector, axis)
        elif operation.name == "aten::add" and scaled.get(other, (0, 0))[1] == axis:
            places[index] = _Affine(axis=axis, scale=scaled[other][0], shift=vector)
    return places


def _channels(tensor: torch.Tensor) -> int | None:
    """The only axis longer than 1, counted from the end, where it can be that of channels."""
    long = [axis - tensor.dim() for axis, side in enumerate(tensor.shape) if side > 1]
    return long[0] if len(long) == 1 and tensor.numel() >= _FEWEST_CHANNELS else None


def _mixing(tape: Tape) -> frozenset[int]:
    """Operators that multiply probabilities of attention with values."""
    softmax = behind_softmax(tape)
    return frozenset(
        index
        for index, operation in enumerate(tape.operations)
        if operation.name in PRODUCTS and any(slot in softmax for _, slot in operation.reads)
    )


def _normalized(affine: _Affine, values: Values, result: torch.Tensor, samples: int) -> list[Normalized]:
    """The result of a normalization, where its samples can be told apart."""
    scale, shift = (values[slot].reshape(-1) for slot in (affine.scale, affine.shift))
    if (
        result.shape[affine.axis] != len(scale)
        or len(shift) != len(scale)
        or result.numel() % (samples * len(scale))
    ):
        return []
    # What follows may overwrite it.
    return [Normalized.of(result.clone(), affine.axis, shift, scale, samples)]


def _by_token(product: torch.Tensor, samples: int) -> list[torch.Tensor]:
    """(samples * heads, tokens, width) as (samples, tokens, heads * width), where samples come first."""
    *leading, tokens, width = product.shape
    if torch.Size(leading).numel() % samples:
        return []
    heads = product.reshape(samples, -1, tokens, width)
    return [heads.transpose(1, 2).flatten(2)]
