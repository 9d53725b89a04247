"""Exact Fisher traces of a TFLite model: its graph is run in PyTorch, where gradients exist.

The interpreter is believed only after its logits agree with the runtime's. Where PyTorch is missing, an
operator has no form here, or the two disagree, the traces come from forward passes alone, and the note says
why.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lampq.adapters.tflite.graph import DTYPES, Op
from lampq.adapters.tflite.model import TfliteModel
from lampq.core.errors import AdapterError
from lampq.core.fisher import forward_fisher
from lampq.core.measure import Progress, quiet

if TYPE_CHECKING:
    import torch

    from lampq.adapters.tflite.torch_ops import Call
    from lampq.core.model import Model

# Float32 kernels of two libraries differ by rounding alone.
_AGREEMENT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """Fisher traces of all layers.

    Attributes:
        values: Layer name -> trace in nats, averaged over samples.
        exact: Whether gradients were used.
        note: Why not, or empty.
    """

    values: dict[str, float]
    exact: bool
    note: str = ""


def fisher_traces(
    model: TfliteModel,
    batch: np.ndarray,
    *,
    labels: str = "auto",
    draws: int = 1,
    seed: int = 0,
    progress: Progress = quiet,
) -> Traces:
    """Trace of the Fisher information of every layer's weights.

    Args:
        model: The float model.
        batch: Inputs, samples first.
        labels: How labels are drawn, see `lampq.adapters.torch.labels`.
        draws: Backward passes per sample where they are drawn; forward passes per layer where there are no
            gradients (at least two are made then).
        seed: Seeds the draws.
        progress: Told after every sample, or every forward pass.

    Raises:
        AdapterError: The batch does not fit, or gradients are not finite.
    """
    reason = obstacle(model)
    if not reason:
        graph = TorchGraph(model)
        reason = _disagreement(model, graph, batch)
    if reason:
        values = forward_fisher(
            cast("Model", model), batch, draws=max(2, draws), seed=seed, progress=progress
        )
        return Traces(values=values, exact=False, note=f"no gradients ({reason}): traces from forward passes")
    values = _traces(model, graph, batch, labels=labels, draws=draws, seed=seed, progress=progress)
    return Traces(values=values, exact=True)


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

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (samples, classes) of a native batch.

        Raises:
            UnsupportedOperatorError: An operator is used in a way that has no form here.
        """
        values = {**self._values, self._model.interface.input: inputs}
        for op, fixed in self._calls:
            call = dataclasses.replace(fixed, inputs=[values.get(tensor) for tensor in op.inputs])
            result: Any = self._operators[op.name](call)
            parts = result if isinstance(result, (tuple, list)) else (result,)
            values.update(zip(op.outputs, parts, strict=True))
        return values[self._model.interface.logits].reshape(len(inputs), -1)

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


def _disagreement(model: TfliteModel, graph: TorchGraph, batch: np.ndarray) -> str:
    """Why the interpreter's logits are not to be believed, or empty."""
    import torch

    from lampq.adapters.tflite.torch_ops import UnsupportedOperatorError

    (first, *_) = model.batches.chunks(model.batches.checked(batch))
    expected = model.run(first)
    try:
        with torch.no_grad():
            found = graph(torch.from_numpy(np.array(first))).numpy()
    except UnsupportedOperatorError as err:
        return f"{err} has no differentiable form here"
    # A wrong guess about an operator shows in many ways; each means the same.
    except (RuntimeError, IndexError, ValueError) as err:
        return f"the interpreter fails: {str(err).splitlines()[0][:100]}"
    difference = float(np.abs(found - expected).max())
    if found.shape == expected.shape and difference <= _AGREEMENT * max(float(np.abs(expected).max()), 1e-6):
        return ""
    return f"the interpreter's logits differ from the runtime's by {difference:.2g}"


def _traces(
    model: TfliteModel,
    graph: TorchGraph,
    batch: np.ndarray,
    *,
    labels: str,
    draws: int,
    seed: int,
    progress: Progress,
) -> dict[str, float]:
    import torch

    from lampq.adapters.torch.labels import directions

    leaves = list(graph.weights.values())
    sums = torch.zeros(len(leaves), dtype=torch.float64)
    chunks = model.batches.chunks(model.batches.checked(batch))
    done = 0
    for chunk in chunks:
        logits = graph(torch.from_numpy(np.array(chunk)))
        count = min(len(chunk), len(batch) - done)
        numbers = np.arange(done, done + len(chunk))
        vectors = directions(logits, labels=labels, draws=draws, seed=seed, samples=numbers)
        for vector in vectors:
            for sample in range(count):
                grads = torch.autograd.grad(
                    (logits[sample].double() * vector[sample]).sum(),
                    leaves,
                    retain_graph=True,
                    allow_unused=True,
                )
                sums += torch.stack(
                    [
                        torch.zeros((), dtype=torch.float64) if g is None else g.double().square().sum()
                        for g in grads
                    ]
                )
        done += count
        progress("Fisher information", done, len(batch))
    if not torch.isfinite(sums).all():
        name = list(graph.weights)[int((~torch.isfinite(sums)).nonzero()[0])]
        raise AdapterError(f"{model.path}: the gradients of layer {name} are not finite; check the data")
    traces = dict.fromkeys(model.weights, 0.0)
    traces.update(zip(graph.weights, (sums / len(batch)).tolist(), strict=True))
    return traces
