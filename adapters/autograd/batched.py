"""A rebuilt graph run by batches, with the gradients of single samples: as a module of PyTorch's own adapter.

A gradient of one sample is the product of what a layer reads and of the gradient of what it gives, both by sample; one
backward pass of a batch holds those of all its samples. That needs every weight to be a factor of a product, and
samples that stay apart: what `adapters.torch` finds out when it surveys a module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lampq.adapters.autograd.graph import AGREEMENT, Graph, UnsupportedOperatorError, tensors_of
from lampq.adapters.torch.agreement import arrays, disagreement
from lampq.adapters.torch.execution import Execution
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.signature import Signature
from lampq.adapters.torch.uses import Use
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import Head

# Samples per pass.
_SAMPLES = 16
# Weights that every sample of a pass may have one of, together.
_SPREAD = 1 << 22


class GraphModule(torch.nn.Module):
    """A graph with its weights as parameters, or as inputs that every sample has one of.

    Args:
        graph: The graph.
        spread: Layers whose weights are inputs.

    Attributes:
        names: Layer name -> parameter name.
        spread: Input name -> layer name.
    """

    def __init__(self, graph: Graph, spread: Sequence[str] = ()) -> None:
        super().__init__()
        self._graph = graph
        self.names = {name: f"weight{n}" for n, name in enumerate(graph.weights) if name not in spread}
        self.spread = {f"{name} of every sample": name for name in spread}
        for name, own in self.names.items():
            self.register_parameter(own, torch.nn.Parameter(graph.weights[name].detach()))

    def forward(self, **inputs: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The judged outputs by name, canonical."""
        weights = {name: getattr(self, own) for name, own in self.names.items()}
        for own, name in self.spread.items():
            apart = inputs.pop(own)
            # An axis of one entry, which is spread over samples anyway, is theirs.
            weights[name] = apart.flatten(0, 1) if self._graph.weights[name].shape[0] == 1 else apart
        return self._graph(inputs, weights)

    def inputs(self, batch: Batch) -> Batch:
        """A batch of the graph's inputs with those weights that every sample has one of."""
        arrays = {own: self._graph.weights[name].detach().numpy() for own, name in self.spread.items()}
        groups = [
            {**group, **{own: np.broadcast_to(array, (size, *array.shape)) for own, array in arrays.items()}}
            for group, size in zip(batch.groups, batch.sizes, strict=True)
        ]
        return Batch(groups)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batched:
    """A graph as `adapters.torch` sees a model whose gradients it takes.

    Attributes:
        runtime: The module made runnable.
        tensors: Its weights by parameter name, or input name where every sample has one.
        parameters: Layer name -> that name.
        judged: The judged outputs, which are canonical as they come.
        spread: Inputs that are weights.
        batch: The samples, with these.
    """

    runtime: Runtime
    tensors: dict[str, torch.Tensor]
    parameters: Mapping[str, str]
    judged: tuple[Head, ...]
    spread: Mapping[str, str]
    batch: Batch

    @classmethod
    def of(cls, graph: Graph, heads: Sequence[Head], batch: Batch, fixed: int | None) -> Batched | None:
        """The graph by batches, or None where its gradients must be taken sample by sample.

        Args:
            graph: The graph.
            heads: Its judged outputs.
            batch: Samples that it takes.
            fixed: The only number of samples that it takes, or None.
        """
        try:
            runtime, module = _surveyed(graph, batch, fixed, ())
            others = [name for name, own in module.names.items() if own not in runtime.survey.uses]
            if sum(graph.weights[name].numel() for name in others) > _SPREAD:
                return None
            if others:
                runtime, module = _surveyed(graph, batch, fixed, others)
            apart = runtime.obstacle is None and not runtime.findings.samples_mix
            known = set(runtime.survey.uses) == set(module.names.values())
            if not apart or not known or not _agree(module, graph, batch.take(range(fixed or 2)), fixed or 1):
                return None
        # Whatever it stumbles over in more than one sample, one at a time may be right.
        except (AdapterError, UnsupportedOperatorError, RuntimeError, IndexError, ValueError, TypeError):
            return None
        return cls(
            runtime=runtime,
            tensors={**runtime.weights, **{own: graph.weights[name] for own, name in module.spread.items()}},
            parameters={**module.names, **{name: own for own, name in module.spread.items()}},
            judged=tuple(replace(head, activated=False) for head in heads),
            spread=module.spread,
            batch=module.inputs(batch),
        )

    def weight(self, name: str) -> np.ndarray:
        """The weight of a layer, float32, in the shape of its record."""
        return self.tensors[self.parameters[name]].detach().numpy()

    def uses(self, name: str) -> tuple[Use, ...]:
        """Where a layer's weight is a factor of a product."""
        return self.runtime.survey.uses.get(self.parameters[name], ())


def _surveyed(
    graph: Graph, batch: Batch, fixed: int | None, spread: Sequence[str]
) -> tuple[Runtime, GraphModule]:
    module = GraphModule(graph, spread)
    inputs = module.inputs(batch)
    signature = Signature(
        names=tuple(inputs.names), required=tuple(inputs.names), keywords=frozenset(inputs.names)
    )
    runtime = Runtime(
        module,
        name="the rebuilt model",
        signature=signature,
        execution=Execution(device="cpu", batch_size=_SAMPLES),
        fixed_batch=fixed,
    )
    return runtime.fitted(inputs), module


def _agree(module: GraphModule, graph: Graph, batch: Batch, size: int) -> bool:
    """Whether a few samples together give what they give `size` at a time."""
    with torch.no_grad():
        together = module(**tensors_of(module.inputs(batch)))
        parts = [
            graph(tensors_of(batch.take(range(start, start + size))))
            for start in range(0, batch.samples, size)
        ]
    alone = {name: torch.cat([part[name] for part in parts]) for name in together}
    return disagreement(alone, arrays(together))[1] <= AGREEMENT
