"""Exact Fisher traces of a TFLite model: its graph is run in PyTorch, where gradients exist.

The interpreter is believed only after its logits agree with the runtime's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lampq.adapters.tflite.graph import DTYPES, Op
from lampq.adapters.tflite.model import OUTPUT, TfliteModel
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import NoGradientsError
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    import torch

    from lampq.adapters.tflite.torch_ops import Call


def fisher_traces(
    model: TfliteModel,
    batch: Batch,
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
        model: The float model.
        batch: Inputs, samples first.
        readout: What the outputs mean.
        labels: How labels are drawn, see `lampq.core.readouts`.
        draws: Backward passes per sample where they are drawn.
        seed: Seeds the draws.
        truth: Labels of the data, for labels `data`.
        samples: Number of each sample in the whole data set; None counts from 0.
        progress: Told after every batch.

    Raises:
        NoGradientsError: PyTorch is missing, an operator has no form there, or it and the runtime disagree.
        AdapterError: The batch does not fit, or gradients are not finite.
    """
    reason = obstacle(model)
    if reason:
        raise NoGradientsError(reason)
    from lampq.adapters.torch.leaf_traces import disagreement, leaf_traces

    graph = TorchGraph(model)
    chunks = [Batch.of(a) for a in model.batches.chunks(model.batches.checked(np.asarray(batch)))]
    reason = disagreement(graph, chunks[0], model.run(chunks[0]))
    if reason:
        raise NoGradientsError(reason)
    numbers = np.arange(batch.samples) if samples is None else samples
    found = leaf_traces(
        graph,
        graph.weights,
        chunks,
        readout,
        numbers,
        labels=labels,
        draws=draws,
        seed=seed,
        truth=truth,
        progress=progress,
    )
    # Weights of other signatures have no part in these logits.
    return {**dict.fromkeys(model.weights, 0.0), **found}


def obstacle(model: TfliteModel) -> str:
    """Why the model cannot be run in PyTorch, or empty."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    from lampq.adapters.tflite.torch_ops import OPERATORS

    cuts = model.cuts
    if not cuts.possible:
        return "the graph branches, loops or keeps state"
    main = model.graph.subgraphs[model.interface.subgraph]
    unknown = sorted({op.name for op in main.ops if op.name not in OPERATORS})
    return f"operator {unknown[0]} has no differentiable form here" if unknown else ""


class TorchGraph:
    """The main subgraph of a model as a function of its input, with the weights as leaves.

    Args:
        model: The model.

    Attributes:
        weights: Layer name -> leaf, in the shape of the layer's record.
    """

    def __init__(self, model: TfliteModel) -> None:
        import torch

        from lampq.adapters.tflite.torch_ops import OPERATORS

        self._model = model
        self._operators = OPERATORS
        self._subgraph = model.graph.subgraphs[model.interface.subgraph]
        self.weights: dict[str, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        for index in range(len(self._subgraph.tensors)):
            stored = self._subgraph.constant(index)
            if stored is not None and self._subgraph.dtype(index) in DTYPES:
                self._values[index] = torch.from_numpy(np.array(stored))
        for name, weight in model.weights.items():
            sites = [site for site in weight.sites if site.subgraph == self._subgraph.index]
            if sites:
                leaf = torch.from_numpy(np.array(model.weight(name))).requires_grad_()
                self.weights[name] = leaf
                self._values.update(dict.fromkeys((site.tensor for site in sites), leaf))
        self._calls = self._prepared()

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Logits (samples, classes) of a native batch.

        Raises:
            UnsupportedOperatorError: An operator is used in a way that has no form here.
        """
        (inputs,) = batch.values()
        values = {**self._values, self._model.interface.input: inputs}
        for op, fixed in self._calls:
            call = dataclasses.replace(fixed, inputs=[values.get(tensor) for tensor in op.inputs])
            result: Any = self._operators[op.name](call)
            parts = result if isinstance(result, (tuple, list)) else (result,)
            values.update(zip(op.outputs, parts, strict=True))
        return {OUTPUT: values[self._model.interface.logits].reshape(len(inputs), -1)}

    def _prepared(self) -> list[tuple[Op, Call]]:
        """The operators up to the logits, with all of a call that does not depend on the input."""
        from lampq.adapters.tflite.torch_ops import Call

        calls = []
        subgraph = self._subgraph
        for op in subgraph.ops:
            # What a replaced weight made needless, such as its conversion from float16.
            if not all(tensor in self._values for tensor in op.outputs):
                fixed = Call(
                    name=op.name,
                    options=op.options,
                    inputs=(),
                    constants=[subgraph.constant(t) if t >= 0 else None for t in op.inputs],
                    shape=subgraph.shape(op.outputs[0]),
                    dtype=subgraph.dtype(op.outputs[0]),
                )
                calls.append((op, fixed))
            if self._model.interface.logits in op.outputs:
                break
        return calls
