"""Forward passes of a PyTorch model that show what its normalizations and attentions make of an input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lampq.adapters.autograd.canonical import canonical
from lampq.adapters.synthetic.observation import Normalized, Observation
from lampq.adapters.torch.folding import NORMALIZATIONS
from lampq.adapters.torch.outputs import sample_rows
from lampq.adapters.torch.rounding import sites
from lampq.adapters.torch.runtime import Recording
from lampq.adapters.torch.tape import Operation, Values, tensors
from lampq.adapters.torch.variant import Varied
from lampq.core.values.errors import AdapterError

_LAYER_NORM = "aten::native_layer_norm"


class TapeObserver:
    """See `lampq.adapters.synthetic.observation.Observer`.

    Args:
        model: The model.
    """

    def __init__(self, model: Varied) -> None:
        self._model = model

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Observation:
        """Run samples, as many as the model takes at a time."""
        model, samples = self._model, len(next(iter(inputs.values())))
        recording = self._recording({name: tensor.detach() for name, tensor in inputs.items()})
        mixing = _mixing(recording)
        normalized: list[Normalized] = []
        attended: list[torch.Tensor] = []

        def call(index: int, operation: Operation, values: Values) -> Any:
            result = operation.call(values, {})
            first = tensors(result)[0]
            if operation.name == _LAYER_NORM or operation.name in NORMALIZATIONS:
                normalized.extend(_normalized(operation, values, first, samples))
            elif index in mixing:
                attended.extend(_by_token(first, samples))
            return result

        raw = recording.tape.run(model.tensors, inputs, call)
        outputs = {
            head.name: canonical(head, sample_rows(raw[head.name], samples, head.name, model.runtime.name))
            for head in model.judged
        }
        return Observation(outputs=outputs, normalized=normalized, attended=attended)

    def _recording(self, inputs: Mapping[str, torch.Tensor]) -> Recording:
        runtime, weights = self._model.runtime, self._model.tensors
        try:
            return runtime.recording(inputs, weights, grad=True, products=True)
        except AdapterError:
            # A fused attention without a plain form: only its inside stays hidden.
            return runtime.recording(inputs, weights, grad=True)


def _mixing(recording: Recording) -> frozenset[int]:
    """Operators that multiply probabilities of attention with values."""
    return frozenset(site.operation for site in sites(recording) if "@values" in site.name)


def _normalized(operation: Operation, values: Values, result: torch.Tensor, samples: int) -> list[Normalized]:
    """The result of a normalization that has a scale and a shift for each channel."""
    leaf = operation.named_leaves()
    scale, shift = (operation.slot(leaf[name]) for name in ("weight", "bias"))
    if (
        scale is None
        or shift is None
        or values[scale].dim() != 1
        or result.numel() % (samples * len(values[scale]))
    ):
        return []
    axis = -1 if operation.name == _LAYER_NORM else 1
    # What follows may overwrite it.
    return [Normalized.of(result.clone(), axis, values[shift], values[scale], samples)]


def _by_token(product: torch.Tensor, samples: int) -> list[torch.Tensor]:
    """(samples * heads, tokens, width) as (samples, tokens, heads * width), where samples come first."""
    *leading, tokens, width = product.shape
    if torch.Size(leading).numel() % samples:
        return []
    heads = product.reshape(samples, -1, tokens, width)
    return [heads.transpose(1, 2).flatten(2)]
