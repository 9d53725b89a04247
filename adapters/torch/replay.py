"""Batches replayed with the input and the output gradient of every layer in hand."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from lampq.adapters.autograd.canonical import canonical
from lampq.adapters.torch.chunks import Chunk
from lampq.adapters.torch.gradients import Rows
from lampq.adapters.torch.layout import Layout
from lampq.adapters.torch.outputs import sample_rows
from lampq.adapters.torch.rounding import Site
from lampq.adapters.torch.rounding import sites as all_sites
from lampq.adapters.torch.runtime import Recording
from lampq.adapters.torch.tape import Named, Operation, Values, tensors
from lampq.adapters.torch.uses import Use, whole
from lampq.adapters.torch.variant import Replayable
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch

WeightGradients = Callable[[str, list[Rows]], None]
"""Told, for each layer, of all its uses in a batch."""
ActivationGradient = Callable[[str, torch.Tensor], None]
"""Told of the gradient that reaches a layer's input through this layer."""
SiteGradient = Callable[[Site, torch.Tensor], None]
"""Told of the gradient that reaches a site's values through the operator that reads them there."""

# What the operators of a pass give, in bytes, unless a single sample has more.
_PASS_BYTES = 1 << 29
# Half precision gradients would vanish below this.
_HALF_SCALE = 1024.0


class Pass:
    """One batch, run forward once and backward as often as wanted.

    Args:
        model: The model.
        chunk: The batch on the device.
        activations: Whether gradients of layers' inputs are wanted.
        sites: Names of the sites whose values and gradients are wanted.

    Attributes:
        count: Samples that count.
        values: Values of these sites.
        outputs: The judged outputs by name, canonical, samples first.
        scale: Factor that all gradients carry.
    """

    def __init__(
        self, model: Replayable, chunk: Chunk, activations: bool, sites: Collection[str] = ()
    ) -> None:
        runtime = model.runtime
        self.count = chunk.count
        self._size = chunk.size
        self._inputs = Batch([_arrays(chunk.inputs, chunk.count)])
        self._names = {parameter: name for name, parameter in model.parameters.items()}
        recording = runtime.recording(
            chunk.inputs, model.tensors, grad=True, products=any("@" in name for name in sites)
        )
        self.values: dict[str, torch.Tensor] = {}
        self._sites: dict[int, list[Site]] = {}
        for site in all_sites(recording) if sites else ():
            if site.name in sites:
                self._sites.setdefault(site.operation, []).append(site)
        self._on_site: SiteGradient | None = None
        self._hooks: list[RemovableHandle] = []
        self._uses = Counter(use.weight for use, _ in recording.uses)
        self._pending: dict[str, list[Rows]] = {}
        self._on_weight: WeightGradients | None = None
        self._on_activation: ActivationGradient | None = None
        with torch.enable_grad():
            inputs = {**chunk.inputs, **self._spread(model, chunk)}
            raw = self._play(model, recording, inputs, activations)
            self.outputs = {
                head.name: canonical(head, sample_rows(raw[head.name], self._size, head.name, runtime.name))
                for head in model.judged
            }
        types = {runtime.autocast, *(raw[head.name].dtype for head in model.judged)}
        self.scale = _HALF_SCALE if torch.float16 in types else 1.0

    def backward(
        self,
        vectors: Iterable[Batch],
        on_weight: WeightGradients,
        on_activation: ActivationGradient | None = None,
        on_site: SiteGradient | None = None,
    ) -> None:
        """Send vectors back from the outputs.

        Args:
            vectors: Directions of the first `count` samples' outputs, by name.
            on_weight: Told of every layer, once per vector.
            on_activation: Told of every use of a layer, once per vector.
            on_site: Told of every site, once per vector.
        """
        self._on_weight, self._on_activation, self._on_site = on_weight, on_activation, on_site
        waiting = None
        # One vector behind, so that the graph is freed with the last.
        for vector in vectors:
            if waiting is not None:
                self._send(waiting, keep=True)
            waiting = vector
        if waiting is not None:
            self._send(waiting, keep=False)

    def release(self) -> None:
        """Let go of the activations: hooks hold this pass, which holds the graph, which holds the hooks.

        Part of that circle lies in autograd, where Python's collector does not see it.
        """
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._on_weight = self._on_activation = self._on_site = None
        self.outputs, self.values = {}, {}

    def _watch(self, tensor: torch.Tensor, told: Callable[[torch.Tensor], None]) -> None:
        self._hooks.append(tensor.register_hook(told))

    def reference(self, readout: Readout) -> Batch:
        """The outputs of the samples that count, as arrays."""
        outputs = {name: tensor.detach().cpu().double() for name, tensor in self.outputs.items()}
        return readout.reference(Batch([_arrays(outputs, self.count)]), self._inputs)

    def _send(self, vector: Batch, *, keep: bool) -> None:
        group = vector.groups[0]
        # What no weight moves has no gradient to send.
        moving = {name: self.outputs[name] for name in group if self.outputs[name].requires_grad}
        if moving:
            directions = [self._padded(group[name], tensor) for name, tensor in moving.items()]
            torch.autograd.backward(list(moving.values()), directions, retain_graph=keep)
        # A use that the outputs do not depend on gets no gradient: the others of its weight are all there is.
        for name in list(self._pending):
            self._report(name)

    def _padded(self, direction: np.ndarray, output: torch.Tensor) -> torch.Tensor:
        """A direction of the samples that count; those that fill up a batch get none."""
        padded = torch.zeros(output.shape, dtype=torch.float64)
        padded[: self.count] = torch.from_numpy(np.array(direction)) * self.scale
        return padded.to(output.dtype).to(output.device)

    def _play(
        self, model: Replayable, recording: Recording, inputs: Named, activations: bool
    ) -> dict[str, torch.Tensor]:
        at = {use.operation: (use, layout) for use, layout in recording.uses}

        def call(index: int, operation: Operation, values: Values) -> Any:
            replaced = self._watched(index, operation, values)
            if index not in at:
                return operation.call(values, replaced)
            use, layout = at[index]
            slot = operation.read_slot(use.data)
            activation = values[slot]
            if activations and activation.is_floating_point():
                # An alias of its own: its gradient is what comes back through this layer alone.
                alias = activation.view_as(activation) if activation.requires_grad else _leaf(activation)
                self._watch(alias, lambda grad: self._tell_activation(use, grad))
                replaced[slot] = alias
            result = operation.call(values, replaced)
            made = tensors(result)[0]
            if not made.requires_grad:
                made = result = _leaf(made)
            detached = activation.detach()
            self._watch(made, lambda grad: self._collect(use, layout, detached, grad))
            return result

        tape = recording.tape
        return tape.run(model.tensors, inputs, call)

    def _spread(self, model: Replayable, chunk: Chunk) -> dict[str, torch.Tensor]:
        """Inputs that are weights, whose gradients by sample are those of the weights."""
        leaves = {own: _leaf(chunk.inputs[own]) for own in model.spread}
        for own, leaf in leaves.items():
            self._watch(leaf, functools.partial(self._collect_whole, own))
        return leaves

    def _collect_whole(self, weight: str, grad: torch.Tensor) -> None:
        samples = grad.reshape(1, self._size, 1, -1)
        rows = Rows(
            use=whole(weight, grad.shape[1:]), inputs=torch.ones_like(samples[..., :1]), gradients=samples
        )
        self._pending[weight] = [rows]
        self._report(weight)

    def _watched(self, index: int, operation: Operation, values: Values) -> dict[int, torch.Tensor]:
        """Aliases of the values of sites, whose gradients are what comes back through this operator alone."""
        aliases = {}
        for site in self._sites.get(index, ()):
            slot = operation.read_slot(site.leaf)
            activation = values[slot]
            self.values[site.name] = activation.detach()
            alias = activation.view_as(activation) if activation.requires_grad else _leaf(activation)
            self._watch(alias, functools.partial(self._tell_site, site))
            aliases[slot] = alias
        return aliases

    def _tell_site(self, site: Site, grad: torch.Tensor) -> None:
        if self._on_site is not None:
            self._on_site(site, grad)

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
        collected = Rows(
            use=use,
            inputs=layout.by_sample(rows, self._size, repeat),
            gradients=layout.by_sample(marks, self._size, repeat),
        )
        group = self._pending.setdefault(use.weight, [])
        group.append(collected)
        if len(group) == self._uses[use.weight]:
            self._report(use.weight)

    def _rows_of_table(self, use: Use) -> int:
        low, high = use.box[use.channel_axis]
        return high - low + 1

    def _report(self, weight: str) -> None:
        group = self._pending.pop(weight)
        if self._on_weight is not None:
            self._on_weight(self._names[weight], group)


def passes(
    model: Replayable, batch: Batch, *, batch_size: int, activations: bool, sites: Collection[str] = ()
) -> Iterator[Pass]:
    """A data set in passes, each of use until the next is asked for.

    Args:
        model: The model.
        batch: Inputs, samples first.
        batch_size: The most samples per pass; fewer where they would take too much memory, and single ones where they
            mix within a batch.
        activations: Whether gradients of layers' inputs are wanted.
        sites: Names of sites whose gradients are wanted.
    """
    size = 1 if model.runtime.findings.samples_mix else min(batch_size, _affordable(model))
    for chunk in model.runtime.chunks(batch, size):
        one = Pass(model, chunk, activations, sites)
        yield one
        one.release()


def _affordable(model: Replayable) -> int:
    """Samples whose pass fits in memory."""
    recording = model.runtime.recording(model.runtime.example, model.tensors, grad=True)
    return max(1, _PASS_BYTES * recording.samples // max(recording.tape.result_bytes, 1))


def _arrays(tensors: Mapping[str, torch.Tensor], count: int) -> dict[str, np.ndarray]:
    """The first samples as arrays."""
    return {
        name: (tensor.float() if tensor.dtype is torch.bfloat16 else tensor)[:count].cpu().numpy()
        for name, tensor in tensors.items()
    }


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_()
