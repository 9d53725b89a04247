"""An ONNX graph as a PyTorch model, which rounds activations where a session of the file cannot.

Layers keep their names, and operators run in submodules named by the places that the exporter noted, so that sites are
called what they are called in a model of the same code. A plan of it applies to the file like that of any other export.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch

from lampq.adapters.autograd.twin import twin
from lampq.adapters.onnx import gradients, naming
from lampq.adapters.onnx.gradients import TorchGraph
from lampq.adapters.onnx.variant import Varied
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import input_batch
from lampq.core.values.batch import BatchLike
from lampq.core.values.errors import AdapterError, NoGradientsError


class _Scope(torch.nn.Module):
    """A place in a model."""

    def forward(self, call: Callable[[], Any]) -> Any:
        """What a call gives that is made here."""
        return call()


class GraphModule(torch.nn.Module):
    """A graph whose weights are parameters, `LAYER.weight`.

    Args:
        graph: The graph.
        inputs: Names of its inputs, in the order that they are given in.
    """

    def __init__(self, graph: TorchGraph, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self._graph, self._inputs = graph, inputs
        self._layers = tuple(graph.weights)
        for name, leaf in graph.weights.items():
            self._scope(name).weight = torch.nn.Parameter(leaf.detach())
        for node in graph.nodes:
            self._scope(naming.node_path(node))

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The judged outputs by name."""
        weights = {name: self._scope(name).weight for name in self._layers}
        return self._graph(dict(zip(self._inputs, inputs, strict=True)), weights, run=self._run)

    def _run(self, node: ir.Node, call: Callable[[], Any]) -> Any:
        path = naming.node_path(node)
        return self._scope(path)(call) if path else call()

    def _scope(self, path: str) -> Any:
        """The submodule at a path, made where there is none."""
        module: torch.nn.Module = self
        for part in filter(None, path.split(".")):
            if part not in module._modules:
                module.add_module(part, _Scope())
            module = getattr(module, part)
        return module


def as_torch(model: Varied, batch: BatchLike) -> Model:
    """An ONNX model as one that rounds activations, judged alike.

    Args:
        model: The model.
        batch: Inputs that both must agree on, samples first.

    Raises:
        AdapterError: PyTorch is missing, an operator has no form there, or it and the runtime disagree.
    """
    inputs = input_batch(model, batch)
    try:
        graph = gradients.rebuilt(model, inputs.take(range(1))).graph
    except NoGradientsError as err:
        raise AdapterError(
            f"{model.path.name}: activations of an ONNX model are rounded in PyTorch before there is a file: {err}; "
            f"leave out --sites and --quantizers, or take the PyTorch model"
        ) from err
    assert isinstance(graph, TorchGraph)  # It is what `rebuilt` makes here.
    names = tuple(spec.name for spec in model.input_specs)
    return twin(model, GraphModule(graph, names), inputs, model.variant.opened.batch)
