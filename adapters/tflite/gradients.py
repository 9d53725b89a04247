"""Exact gradients of a TFLite model: its graph is run in PyTorch, where gradients exist.

The interpreter is believed only after its outputs agree with the runtime's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lampq.adapters.tflite.graph import DTYPES, Op
from lampq.adapters.tflite.outputs import Output
from lampq.adapters.tflite.variant import Variant
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import NoGradientsError
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    import torch

    from lampq.adapters.tflite.torch_call import Call
    from lampq.core.readouts.readout import Readout
    from lampq.core.values.activation_grid import ActivationRule


def fisher_traces(
    variant: Variant,
    batch: BatchLike,
    readout: Readout,
    *,
    labels: str = "auto",
    draws: int = 1,
    seed: int = 0,
    truth: np.ndarray | None = None,
    samples: np.ndarray | None = None,
    progress: Progress = quiet,
) -> dict[str, float]:
    """Trace of the Fisher information of every layer's weights, nats, averaged over samples.

    Args:
        variant: The float model.
        batch: Inputs by name, samples first.
        readout: What its outputs mean.
        labels: How labels are drawn, see `lampq.core.readouts.directions`.
        draws: Backward passes per sample where they are drawn.
        seed: Seeds the draws.
        truth: Labels of the data, for labels `data`.
        samples: Number of each sample in the whole data set; None counts from 0.
        progress: Told after every batch.

    Raises:
        NoGradientsError: PyTorch is missing, an operator has no form there, or it and the runtime disagree.
        AdapterError: The batch does not fit, or gradients are not finite.
    """
    graph, pieces, count = _agreeing(variant, batch)
    from lampq.adapters.torch.leaf_traces import leaf_traces

    traces = leaf_traces(
        graph,
        graph.weights,
        pieces,
        readout,
        np.arange(count) if samples is None else samples,
        labels=labels,
        draws=draws,
        seed=seed,
        truth=truth,
        progress=progress,
    )
    # Weights that no judged output depends on have no part in them.
    return {**dict.fromkeys(variant.opened.weights, 0.0), **traces}


def gradient_rows(
    variant: Variant,
    batch: BatchLike,
    candidates: Mapping[str, tuple[Sequence[np.ndarray], Sequence[ActivationRule | None]]],
    readout: Readout,
    *,
    labels: str = "principal",
    draws: int = 3,
    seed: int = 0,
    samples: np.ndarray | None = None,
    progress: Progress = quiet,
) -> Iterator[dict[str, np.ndarray]]:
    """Changes of the outputs to first order; see `lampq.core.measuring.gradient_rows.GradientRows`.

    Raises:
        NoGradientsError: PyTorch is missing, an operator has no form there, or it and the runtime disagree.
        AdapterError: The batch does not fit.
    """
    graph, pieces, count = _agreeing(variant, batch)
    from lampq.adapters.torch.leaf_rows import leaf_rows

    return leaf_rows(
        graph,
        graph.weights,
        pieces,
        candidates,
        readout,
        np.arange(count) if samples is None else samples,
        labels=labels,
        draws=draws,
        seed=seed,
        progress=progress,
    )


def relevance(variant: Variant, batch: BatchLike, progress: Progress = quiet) -> dict[str, float]:
    """Relevance of the layers; see `lampq.core.measuring.relevance.Relevant`.

    Raises:
        NoGradientsError: PyTorch is missing, an operator has no form there, or it and the runtime disagree.
        AdapterError: The batch does not fit, or relevance has no rule for an operator.
    """
    graph, pieces, count = _agreeing(variant, batch)
    from lampq.adapters.torch.relevance import graph_relevance

    return graph_relevance(
        graph, graph.weights, pieces, [head for _, head in variant.judgement.judged], count, progress
    )


def _agreeing(variant: Variant, batch: BatchLike) -> tuple[TorchGraph, list[Batch], int]:
    """The graph in PyTorch, which agrees with the runtime on the first of the batches it takes; these; the samples.

    Raises:
        NoGradientsError: There is none; says why.
        AdapterError: The batch does not fit.
    """
    reason = obstacle(variant)
    if reason:
        raise NoGradientsError(reason)
    from lampq.adapters.torch.leaf_traces import disagreement

    graph = TorchGraph(variant)
    checked = variant.opened.batches.checked(batch)
    pieces = _pieces(checked, variant.opened.interface.native_batch)
    reason = disagreement(graph, pieces[0], variant.run(pieces[0]))
    if reason:
        raise NoGradientsError(reason)
    return graph, pieces, checked.samples


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
        for index in range(len(self._subgraph.tensors)):
            stored = self._subgraph.constant(index)
            if stored is not None and self._subgraph.dtype(index) in DTYPES:
                self._values[index] = torch.from_numpy(np.array(stored))
        for name, weight in variant.opened.weights.items():
            readings = [r.tensor for r in weight.readings if r.subgraph == self._subgraph.index]
            if readings and variant.cuts.first(weight) is not None:
                leaf = torch.from_numpy(np.array(variant.values(name))).requires_grad_()
                self.weights[name] = leaf
                self._values.update(dict.fromkeys(readings, leaf))
        self._calls = self._prepared()

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The judged outputs of at most a native batch by name, canonical, samples first.

        Raises:
            UnsupportedOperatorError: An operator is used in a way that has no form here.
        """
        from lampq.adapters.torch.canonical import canonical

        interface, count = self._variant.opened.interface, len(next(iter(batch.values())))
        values = dict(self._values)
        for port in interface.inputs:
            samples = batch[port.spec.name]
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
