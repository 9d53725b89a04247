"""Exact gradients of a TFLite model: its graph is run in PyTorch, where gradients exist.

The interpreter is believed only after its outputs agree with the runtime's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lampq.adapters.tflite.graph import DTYPES, Op
from lampq.adapters.tflite.outputs import Output
from lampq.adapters.tflite.variant import Variant
from lampq.core.values.batch import Batch
from lampq.core.values.errors import NoGradientsError

if TYPE_CHECKING:
    import torch

    from lampq.adapters.autograd.rebuilt import Rebuilt
    from lampq.adapters.tflite.torch_call import Call


def rebuilt(variant: Variant, inputs: Batch) -> Rebuilt:
    """The model in PyTorch, which agrees with the runtime on the first of the batches that it takes.

    Raises:
        NoGradientsError: PyTorch is missing, an operator has no form there, or it and the runtime disagree.
    """
    reason = obstacle(variant)
    if reason:
        raise NoGradientsError(reason)
    from lampq.adapters.autograd.graph import disagreement
    from lampq.adapters.autograd.rebuilt import Rebuilt

    graph = TorchGraph(variant)
    pieces = _pieces(inputs, variant.opened.interface.native_batch)
    reason = disagreement(graph, pieces[0], variant.run(pieces[0]))
    if reason:
        raise NoGradientsError(reason)
    names, heads = tuple(variant.opened.weights), tuple(head for _, head in variant.judgement.judged)
    fixed = variant.opened.interface.native_batch
    return Rebuilt(graph=graph, inputs=inputs, chunks=pieces, fixed=fixed, layers=names, heads=heads)


def _pieces(batch: Batch, size: int) -> list[Batch]:
    """The samples of a batch, at most `size` of one shape at a time."""
    groups = [Batch([group]) for group in batch.groups]
    return [
        group.take(range(start, min(start + size, group.samples)))
        for group in groups
        for start in range(0, group.samples, size)
    ]


def obstacle(variant: Variant) -> str:
    """Why the model cannot be run in PyTorch, or empty."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    from lampq.adapters.tflite.torch_ops import OPERATORS

    cuts = variant.cuts
    if not cuts.possible:
        return "the graph branches, loops or keeps state"
    if any(port.scale is not None for port in variant.opened.interface.inputs):
        return "its inputs are quantized"
    ops = (op for op in variant.opened.main.ops if op.index in cuts.needed)
    unknown = sorted({op.name for op in ops if op.name not in OPERATORS})
    return f"operator {unknown[0]} has no differentiable form here" if unknown else ""


class TorchGraph:
    """The main subgraph of a model as a function of its inputs, with the weights as leaves.

    Args:
        variant: The model.

    Attributes:
        weights: Layer name -> leaf, in the shape of the layer's record.
    """

    def __init__(self, variant: Variant) -> None:
        import torch

        from lampq.adapters.tflite.torch_ops import OPERATORS

        self._variant = variant
        self._operators = OPERATORS
        self._subgraph = variant.opened.main
        self.weights: dict[str, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        self._places: dict[str, list[int]] = {}
        for index in range(len(self._subgraph.tensors)):
            stored = self._subgraph.constant(index)
            if stored is not None and self._subgraph.dtype(index) in DTYPES:
                self._values[index] = torch.from_numpy(np.array(stored))
        for name, weight in variant.opened.weights.items():
            readings = [r.tensor for r in weight.readings if r.subgraph == self._subgraph.index]
            if readings and variant.cuts.first(weight) is not None:
                leaf = torch.from_numpy(np.array(variant.values(name))).requires_grad_()
                self.weights[name], self._places[name] = leaf, readings
                self._values.update(dict.fromkeys(readings, leaf))
        self._calls = self._prepared()

    def __call__(
        self, inputs: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """The judged outputs of at most a native batch by name, canonical, samples first.

        Raises:
            UnsupportedOperatorError: An operator is used in a way that has no form here.
        """
        from lampq.adapters.autograd.canonical import canonical

        interface, count = self._variant.opened.interface, len(next(iter(inputs.values())))
        values = dict(self._values)
        for name, leaf in (weights or {}).items():
            values.update(dict.fromkeys(self._places[name], leaf))
        for port in interface.inputs:
            samples = inputs[port.spec.name]
            missing = interface.native_batch - count
            filled = samples if missing <= 0 else samples[[*range(count), *([count - 1] * missing)]]
            values[port.tensor] = filled[0] if port.whole else filled
        for op, fixed in self._calls:
            call = dataclasses.replace(fixed, inputs=[values.get(tensor) for tensor in op.inputs])
            result: Any = self._operators[op.name](call)
            parts = result if isinstance(result, (tuple, list)) else (result,)
            values.update(zip(op.outputs, parts, strict=True))
        return {
            head.name: canonical(head, _samples(output, values[output.tensor])[:count])
            for output, head in self._variant.judgement.judged
        }

    def _prepared(self) -> list[tuple[Op, Call]]:
        """The needed operators, with all of a call that does not depend on the input."""
        from lampq.adapters.tflite.torch_call import Call

        calls = []
        subgraph, needed = self._subgraph, self._variant.cuts.needed
        for op in subgraph.ops:
            # What a replaced weight made needless, such as its conversion from float16.
            if op.index in needed and not all(tensor in self._values for tensor in op.outputs):
                fixed = Call(
                    name=op.name,
                    options=op.options,
                    inputs=(),
                    constants=[subgraph.constant(t) if t >= 0 else None for t in op.inputs],
                    shape=subgraph.shape(op.outputs[0]),
                    dtype=subgraph.dtype(op.outputs[0]),
                )
                calls.append((op, fixed))
        return calls


def _samples(output: Output, values: torch.Tensor) -> torch.Tensor:
    rows = values.float()
    return rows[None] if output.whole else rows
