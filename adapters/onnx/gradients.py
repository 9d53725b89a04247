"""Exact Fisher traces of an ONNX model: its graph is run in PyTorch, where gradients exist.

The interpreter is believed only after its logits agree with the runtime's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import batches
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.model import OUTPUT, OnnxModel
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import NoGradientsError
from lampq.core.values.progress import Progress, quiet

if TYPE_CHECKING:
    import torch

    from lampq.adapters.onnx.torch_ops import Call

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# What the runtime computes in half precision is computed in single here.
_HALF_AGREEMENT = 2e-2


def fisher_traces(
    model: OnnxModel,
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
    reason = obstacle(model.flow)
    if reason:
        raise NoGradientsError(reason)
    from lampq.adapters.torch.leaf_traces import (
        AGREEMENT,
        UnsupportedOperatorError,
        disagreement,
        leaf_traces,
    )

    try:
        graph = TorchGraph(model)
    except UnsupportedOperatorError as err:
        raise NoGradientsError(f"{err} has no differentiable form here") from err
    checked = batches.check(np.asarray(batch), model.input_spec, str(model.path))
    # One gradient per sample: what samples share in a batch would be kept for each of them.
    size = model.fixed_batch(checked.shape[1:]) or 1
    chunks = [Batch.of(chunk.array) for chunk in batches.split(checked, size, fixed=True)]
    half = any(site.weight.dtype in _HALF for site in model.sites)
    reason = disagreement(
        graph, chunks[0], model.run(chunks[0]), tolerance=_HALF_AGREEMENT if half else AGREEMENT
    )
    if reason:
        raise NoGradientsError(reason)
    return leaf_traces(
        graph,
        graph.weights,
        chunks,
        readout,
        np.arange(batch.samples) if samples is None else samples,
        labels=labels,
        draws=draws,
        seed=seed,
        truth=truth,
        progress=progress,
    )


def obstacle(flow: Flow) -> str:
    """Why the graph cannot be run in PyTorch, or empty."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    from lampq.adapters.onnx.torch_ops import OPERATORS

    unknown = sorted(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in _needed(flow)
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx")
    )
    return f"operator {unknown[0]} has no differentiable form here" if unknown else ""


class TorchGraph:
    """The graph of a model as a function of its input, with the weights as leaves.

    Args:
        model: The model.

    Attributes:
        weights: Layer name -> leaf, float32, in the shape of the layer's record.

    Raises:
        UnsupportedOperatorError: A constant is of a type that PyTorch has not.
    """

    def __init__(self, model: OnnxModel) -> None:
        import torch

        from lampq.adapters.onnx.torch_ops import OPERATORS, Call

        self._flow = model.flow
        self._operators = OPERATORS
        version = model.flow.model.graph.opset_imports.get("", 0)
        self.weights: dict[str, torch.Tensor] = {}
        self._leaves: dict[ir.Value, torch.Tensor] = {}
        for site in model.sites:
            leaf = torch.from_numpy(np.array(model.weight(site.name))).requires_grad_()
            self.weights[site.name] = self._leaves[site.weight] = leaf
        self._constants: dict[ir.Value, torch.Tensor] = {}
        self._calls: list[tuple[ir.Node, Call]] = []
        for node in _needed(model.flow):
            for value in node.inputs:
                if value is None or value in self._leaves or value in self._constants:
                    continue
                if value.const_value is not None:
                    self._constants[value] = _tensor(value.const_value)
            call = Call(node.op_type, _attributes(node), (), len(node.outputs), version)
            self._calls.append((node, call))

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Logits (samples, classes) of a batch.

        Raises:
            UnsupportedOperatorError: An operator is used in a way that has no form here.
        """
        import torch

        (inputs,) = batch.values()
        source = inputs.float() if inputs.is_floating_point() else inputs
        values = {**self._leaves, **self._constants, self._flow.inputs[0]: source}
        for node, fixed in self._calls:
            given = [None if value is None else values[value] for value in node.inputs]
            result: Any = self._operators[node.op_type](dataclasses.replace(fixed, inputs=given))
            parts = result if isinstance(result, (tuple, list)) else (result,)
            # Optional results that nobody wants have no name and no value.
            values.update(zip(node.outputs, parts, strict=False))
        logits = values[self._flow.output].reshape(len(inputs), -1).float()
        if self._flow.log_probabilities:
            logits = torch.log(logits.clamp_min(torch.finfo(torch.float32).tiny))
        return {OUTPUT: logits}


def _needed(flow: Flow) -> list[ir.Node]:
    """All nodes the logits depend on, in graph order, those that compute constants included."""
    wanted, nodes = {flow.output}, []
    for node in reversed(flow.model.graph):
        if any(value in wanted for value in node.outputs):
            wanted.update(flow.reads[node])
            nodes.append(node)
    return nodes[::-1]


def _tensor(stored: ir.TensorProtocol) -> torch.Tensor:
    import torch

    from lampq.adapters.onnx.torch_ops import TYPES
    from lampq.adapters.torch.leaf_traces import UnsupportedOperatorError

    kind = TYPES.get(stored.dtype.value)
    if kind is None:
        raise UnsupportedOperatorError(f"a constant of type {stored.dtype.name}")
    array = np.array(stored.numpy())
    return torch.from_numpy(array.astype(np.float32) if kind == torch.float32 else array)


def _attributes(node: ir.Node) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            value = _tensor(value)
        elif isinstance(value, tuple):
            value = list(value)
        found[name] = value
    return found
