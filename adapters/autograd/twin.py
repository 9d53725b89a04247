"""A model of a file as one that rounds activations: PyTorch's, over the graph rebuilt there, judged alike."""

from __future__ import annotations

import torch

from lampq.adapters.torch.execution import Execution
from lampq.adapters.torch.model import TorchModel
from lampq.adapters.torch.provenance import Provenance
from lampq.adapters.torch.runtime import Runtime
from lampq.adapters.torch.signature import Signature
from lampq.core.measuring.model import Model
from lampq.core.values.batch import Batch
from lampq.core.values.head import HeadChoice


def twin(model: Model, module: torch.nn.Module, inputs: Batch, fixed_batch: int | None) -> TorchModel:
    """The model, computed by a module whose parameters are `LAYER.weight`.

    Args:
        model: The model.
        module: Takes its inputs in their order, and gives its judged outputs by name.
        inputs: Samples that it takes.
        fixed_batch: The only number of samples that it takes, or None.
    """
    names = tuple(spec.name for spec in model.input_specs)
    runtime = Runtime(
        module.eval(),
        name=model.path.name,
        input_shape={name: array.shape[1:] for name, array in inputs.groups[0].items()},
        signature=Signature(names=names, required=names),
        fixed_batch=fixed_batch,
        execution=Execution(device="cpu"),
    )
    provenance = Provenance(path=model.path, source=str(model.path))
    parameters = TorchModel.of(runtime, provenance).parameters
    # Tables that are added are layers of files alone.
    kinds = {layer.name: layer.kind for layer in model.layers() if layer.name in parameters}
    heads = [HeadChoice(name=head.name, role=head.role, weight=head.weight) for head in model.heads]
    return TorchModel.of(runtime, provenance, kinds=kinds).with_heads(heads)
