"""Data into inputs: by name, of the types that a module takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from lampq.adapters.torch.inputs import Inputs, Run, example_of, to_tensor
from lampq.adapters.torch.signature import Signature
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError


def named(batch: Batch, signature: Signature, model: str) -> Batch:
    """The batch with the names of the inputs: a lone array is the main one, whatever it is called.

    Raises:
        AdapterError: An input is missing, or unknown.
    """
    if len(batch.names) == 1 and batch.names[0] not in signature.names:
        own = batch.names[0]
        batch = Batch([{signature.main: group[own]} for group in batch.groups])
    signature.check(batch.names, model)
    return batch


def examples(
    batch: Batch, module: torch.nn.Module, run: Run, count: int, model: str
) -> tuple[Inputs, Inputs | None]:
    """An example of the inputs, and one of other shapes where the data have several.

    Args:
        batch: Inputs by name.
        module: The module.
        run: Its forward pass.
        count: Samples of each example.
        model: What to call it in messages.

    Raises:
        AdapterError: The module does not take them; says what it objects to.
    """
    fitted = []
    for group in batch.groups[:2]:
        example, objection = example_of(group, module, run, count)
        if objection:
            shapes = ", ".join(f"{n} {array.dtype}{list(array.shape)}" for n, array in group.items())
            raise AdapterError(f"{model} fails on inputs of shape {shapes}: {objection}")
        fitted.append(example)
    return fitted[0], fitted[1] if len(fitted) > 1 else None


def typed(arrays: Mapping[str, np.ndarray], example: Inputs, module: torch.nn.Module, model: str) -> Inputs:
    """Samples on the device, in the types of the example.

    Raises:
        AdapterError: They are no numbers, or floating point where whole numbers are wanted.
    """
    inputs = {}
    for name, array in arrays.items():
        like = example.get(name)
        floating = like is not None and like.is_floating_point()
        if like is not None and not floating and array.dtype.kind == "f":
            raise AdapterError(f"{model}: input {name} takes whole numbers, not {array.dtype}")
        try:
            tensor = to_tensor(array, module, floating=floating)
        except AdapterError as err:
            raise AdapterError(f"{model}: input {name}: {err}") from err
        inputs[name] = tensor if like is None else tensor.to(like.device, like.dtype)
    return inputs


def alike(one: Inputs, other: Inputs) -> bool:
    """Whether two examples have the same inputs, in the same shapes and types."""
    return _shapes(one) == _shapes(other)


def _shapes(inputs: Inputs) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape[1:], tensor.dtype) for name, tensor in inputs.items()}
