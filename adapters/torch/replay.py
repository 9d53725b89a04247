"""Batches replayed with the input and the output gradient of every layer in hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lampq.adapters.torch.gradients import Rows
from lampq.adapters.torch.layout import Layout
from lampq.adapters.torch.model import INPUT, OUTPUT, TorchModel
from lampq.adapters.torch.runtime import Recording
from lampq.adapters.torch.tape import Operation, Values, tensors
from lampq.adapters.torch.uses import Use
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch

WeightGradients = Callable[[str, list[Rows]], None]
"""Told, for each layer, of all its uses in a batch."""
ActivationGradient = Callable[[str, torch.Tensor], None]
"""Told of the gradient that reaches a layer's input through this layer."""

# Half precision gradients would vanish below this.
_HALF_SCALE = 1024.0


class Pass:
    """One batch, run forward once and backward as often as wanted.

    Args:
        model: The model.
        batch: The batch on the device.
        count: Its first samples that count; the others fill up a fixed batch.
        activations: Whether gradients of layers' inputs are wanted.

    Attributes:
        count: Samples that count.
        logits: Shape (samples, classes).
        scale: Factor that all gradients carry.
    """

    def __init__(self, model: TorchModel, batch: torch.Tensor, count: int, activations: bool) -> None:
        runtime = model.runtime
        self.count = count
        self._size = len(batch)
        self._inputs = Batch.of(batch[:count].cpu().numpy(), name=INPUT)
        self._names = {parameter: name for name, parameter in model.parameters.items()}
        recording = runtime.recording(batch, model.tensors, grad=True)
        self._uses = Counter(use.weight for use, _ in recording.uses)
        self._pending: dict[str, list[Rows]] = {}
        self._on_weight: WeightGradients | None = None
        self._on_activation: ActivationGradient | None = None
        with torch.enable_grad():
            self.logits = self._play(model, recording, batch, activations)
        self.scale = _HALF_SCALE if torch.float16 in (self.logits.dtype, runtime.autocast) else 1.0

    def backward(
        self,
        vectors: Iterable[Batch],
        on_weight: WeightGradients,
        on_activation: ActivationGradient | None = None,
    ) -> None:
        """Send vectors back from the logits.

        Args:
            vectors: Directions of the first `count` samples' outputs.
            on_weight: Told of every layer, once per vector.
            on_activation: Told of every use of a layer, once per vector.
        """
        self._on_weight, self._on_activation = on_weight, on_activation
        waiting = None
        # One vector behind, so that the graph is freed with the last.
        for vector in vectors:
            if waiting is not None:
                self._send(waiting, keep=True)
            waiting = vector
        if waiting is not None:
            self._send(waiting, keep=False)

    def reference(self, readout: Readout) -> Batch:
        """The outputs of the samples that count, as arrays."""
        logits = self.logits[: self.count].detach().double().cpu().numpy()
        return readout.reference(Batch.of(logits, name=OUTPUT), self._inputs)

    def _send(self, vector: Batch, *, keep: bool) -> None:
        direction = torch.from_numpy(np.array(vector[OUTPUT])).to(self.logits.device)
        padded = functional.pad(direction * self.scale, (0, 0, 0, self._size - self.count))
        torch.autograd.backward([self.logits], [padded.to(self.logits)], retain_graph=keep)
        # A use that the logits do not depend on gets no gradient: the others of its weight are all there is.
        for name in list(self._pending):
            self._report(name)

    def _play(
        self, model: TorchModel, recording: Recording, batch: torch.Tensor, activations: bool
    ) -> torch.Tensor:
        at = {use.operation: (use, layout) for use, layout in recording.uses}

        def call(index: int, operation: Operation, values: Values) -> Any:
            if index not in at:
                return operation.call(values, {})
            use, layout = at[index]
            slot = operation.read_slot(use.data)
            activation = values[slot]
            replaced = {}
            if activations and activation.is_floating_point():
                # An alias of its own: its gradient is what comes back through this layer alone.
                alias = activation.view_as(activation) if activation.requires_grad else _leaf(activation)
                alias.register_hook(lambda grad: self._tell_activation(use, grad))
                replaced[slot] = alias
            result = operation.call(values, replaced)
            made = tensors(result)[0]
            if not made.requires_grad:
                made = result = _leaf(made)
            kept = activation.detach()
            made.register_hook(lambda grad: self._collect(use, layout, kept, grad))
            return result

        tape = recording.tape
        return tape.play(tape.start(model.tensors, batch), call=call)[tape.output]

    def _tell_activation(self, use: Use, grad: torch.Tensor) -> None:
        if self._on_activation is not None:
            self._on_activation(self._names[use.weight], grad)

    def _collect(self, use: Use, layout: Layout | None, activation: torch.Tensor, grad: torch.Tensor) -> None:
        units = len(use.units(activation))
        if use.form == "lookup":
            # W[id] is one-hot(id) @ W: the ids play the part of the output gradient.
            rows = grad.reshape(1, -1, grad.shape[-1])
            marks = functional.one_hot(activation.reshape(1, -1), self._rows_of_table(use)).to(grad.dtype)
        else:
            rows, marks = use.inputs(activation), use.outputs(grad)
        layout = layout or Layout(inner=None)
        repeat = rows.shape[1] // units
        found = Rows(
            use=use,
            inputs=layout.by_sample(rows, self._size, repeat),
            gradients=layout.by_sample(marks, self._size, repeat),
        )
        group = self._pending.setdefault(use.weight, [])
        group.append(found)
        if len(group) == self._uses[use.weight]:
            self._report(use.weight)

    def _rows_of_table(self, use: Use) -> int:
        low, high = use.box[use.channel_axis]
        return high - low + 1

    def _report(self, weight: str) -> None:
        group = self._pending.pop(weight)
        if self._on_weight is not None:
            self._on_weight(self._names[weight], group)


def passes(model: TorchModel, batch: Batch, *, batch_size: int, activations: bool) -> Iterator[Pass]:
    """A data set in passes.

    Args:
        model: The model.
        batch: Inputs, samples first.
        batch_size: Samples per pass; single samples where they mix within a batch.
        activations: Whether gradients of layers' inputs are wanted.
    """
    size = 1 if model.runtime.samples_mix else batch_size
    for tensor, count in model.runtime.batches(np.asarray(batch), size):
        yield Pass(model, tensor, count, activations)


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_()
