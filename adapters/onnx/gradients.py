"""Exact gradients of an ONNX model: its graph is run in PyTorch, where gradients exist.

The interpreter is believed only after its outputs agree with the runtime's.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import batches, trials
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.inputs import sample_axes
from lampq.adapters.onnx.variant import Variant, Varied
from lampq.core.measuring.model import release
from lampq.core.values.batch import Batch
from lampq.core.values.errors import NoGradientsError
from lampq.core.values.head import PROBABILITIES, VALUES, HeadChoice

if TYPE_CHECKING:
    import torch

    from lampq.adapters.autograd.rebuilt import Rebuilt
    from lampq.adapters.onnx.torch_call import Call

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# What the runtime computes in half precision is computed in single here.
_HALF_AGREEMENT = 2e-2


def rebuilt(model: Varied, inputs: Batch) -> Rebuilt:
    """The model in PyTorch, which agrees with the runtime on the first of the batches that it takes.

    Raises:
        NoGradientsError: PyTorch is missing, an operator has no form there, or it and the runtime disagree.
    """
    opened, records = model.variant.opened, model.variant.records
    reason = obstacle(opened.flow)
    if reason:
        raise NoGradientsError(reason)
    from lampq.adapters.autograd.graph import AGREEMENT, UnsupportedOperatorError, disagreement
    from lampq.adapters.autograd.rebuilt import Rebuilt

    try:
        graph = TorchGraph(model.variant)
    except UnsupportedOperatorError as err:
        raise NoGradientsError(f"{err} has no differentiable form here") from err
    # One gradient per sample: what samples share in a batch would be kept for each of them.
    sizes = [records.fixed_batch(batches.sample_shapes(group)) for group in inputs.groups]
    chunks = [
        Batch([chunk.arrays])
        for group, size in zip(inputs.groups, sizes, strict=True)
        for chunk in batches.split(group, size or 1, fixed=True)
    ]
    half = any(site.dtype in _HALF for site in opened.sites)
    # As logits, probabilities next to 1 differ by much where they differ by nothing.
    sigmoids = [h for h in opened.judged if h.activated and h.role == PROBABILITIES]
    plain = model.with_heads([HeadChoice(name=h.name, role=VALUES) for h in sigmoids]) if sigmoids else model
    reason = disagreement(
        TorchGraph(plain.variant) if sigmoids else graph,
        chunks[0],
        plain.run(chunks[0]),
        tolerance=_HALF_AGREEMENT if half else AGREEMENT,
    )
    if trials.is_large(opened):
        # The rebuilt model has the weights again.
        release(model)
    if reason:
        raise NoGradientsError(reason)
    names = tuple(site.name for site in opened.sites)
    return Rebuilt(
        graph=graph,
        inputs=inputs,
        chunks=chunks,
        fixed=max(filter(None, sizes), default=None),
        layers=names,
        heads=opened.judged,
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


def _plainly(node: ir.Node, call: Callable[[], Any]) -> Any:
    return call()


class TorchGraph:
    """The graph of a model as a function of its inputs, with the weights as leaves.

    Args:
        variant: The model.

    Attributes:
        weights: Layer name -> leaf, float32, in the shape of the layer's record.

    Raises:
        UnsupportedOperatorError: A constant is of a type that PyTorch has not.
    """

    def __init__(self, variant: Variant) -> None:
        import torch

        from lampq.adapters.onnx.torch_call import Call
        from lampq.adapters.onnx.torch_ops import OPERATORS

        opened = self._opened = variant.opened
        self._operators = OPERATORS
        version = opened.flow.model.graph.opset_imports.get("", 0)
        self.weights: dict[str, torch.Tensor] = {}
        self._leaves: dict[ir.Value, torch.Tensor] = {}
        self._places = {site.name: site.weight for site in opened.sites}
        for site in opened.sites:
            leaf = torch.from_numpy(np.array(variant.weight(site.name))).requires_grad_()
            self.weights[site.name] = self._leaves[site.weight] = leaf
        self._constants: dict[ir.Value, torch.Tensor] = {}
        self._calls: list[tuple[ir.Node, Call]] = []
        for node in _needed(opened.flow):
            for value in node.inputs:
                if value is None or value in self._leaves or value in self._constants:
                    continue
                if value.const_value is not None:
                    self._constants[value] = _tensor(value.const_value)
            call = Call(node.op_type, _attributes(node), (), len(node.outputs), version)
            self._calls.append((node, call))

    @property
    def nodes(self) -> list[ir.Node]:
        """What is run, in order."""
        return [node for node, _ in self._calls]

    def __call__(
        self,
        inputs: Mapping[str, torch.Tensor],
        weights: Mapping[str, torch.Tensor] | None = None,
        *,
        run: Callable[[ir.Node, Callable[[], Any]], Any] = _plainly,
    ) -> dict[str, torch.Tensor]:
        """The judged outputs of a batch by name, canonical, samples first; `run` runs each node.

        Raises:
            UnsupportedOperatorError: An operator is used in a way that has no form here.
        """
        import torch

        from lampq.adapters.autograd.canonical import canonical

        samples = len(next(iter(inputs.values())))
        fixed_inputs = {n: torch.from_numpy(np.array(a)) for n, a in self._opened.fixed(samples).items()}
        sources = {**fixed_inputs, **inputs}
        own = {} if weights is None else {self._places[name]: leaf for name, leaf in weights.items()}
        values = {**self._leaves, **self._constants, **own}
        axes = sample_axes(self._opened.flow)
        for value in self._opened.flow.inputs:
            name = value.name or ""
            source = sources[name].movedim(0, axes[name]) if name in axes else sources[name]
            values[value] = source.float() if source.is_floating_point() else source
        for node, fixed in self._calls:
            operands = [None if value is None else values[value] for value in node.inputs]
            call = dataclasses.replace(fixed, inputs=operands)
            result: Any = run(node, functools.partial(self._operators[node.op_type], call))
            parts = result if isinstance(result, (tuple, list)) else (result,)
            # Optional results that nobody wants have no name and no value.
            values.update(zip(node.outputs, parts, strict=False))
        outputs = {}
        for head, value in zip(self._opened.judged, self._opened.flow.outputs, strict=True):
            rows = values[value].float()
            # The model may know one sample and no axis for several.
            single = samples == 1 and (not rows.dim() or len(rows) != 1)
            outputs[head.name] = canonical(head, rows[None] if single else rows)
        return outputs


def _needed(flow: Flow) -> list[ir.Node]:
    """All nodes the outputs depend on, in graph order, those that compute constants included."""
    wanted, nodes = set(flow.outputs), []
    for node in reversed(flow.model.graph):
        if any(value in wanted for value in node.outputs):
            wanted.update(flow.reads[node])
            nodes.append(node)
    return nodes[::-1]


def _tensor(stored: ir.TensorProtocol) -> torch.Tensor:
    import torch

    from lampq.adapters.autograd.graph import UnsupportedOperatorError
    from lampq.adapters.onnx.torch_call import TYPES

    kind = TYPES.get(stored.dtype.value)
    if kind is None:
        raise UnsupportedOperatorError(f"a constant of type {stored.dtype.name}")
    array = np.array(stored.numpy())
    return torch.from_numpy(array.astype(np.float32) if kind == torch.float32 else array)


def _attributes(node: ir.Node) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            value = _tensor(value)
        elif isinstance(value, tuple):
            value = list(value)
        plain[name] = value
    return plain
