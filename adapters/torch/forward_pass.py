"""A module as a function of its weights and inputs: run, recorded, and its failures in one line."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator

import torch

from lampq.adapters.torch.execution import Execution
from lampq.adapters.torch.fronts import Front, fronts
from lampq.adapters.torch.kernels import plain_attention, plain_masks, plain_recurrence
from lampq.adapters.torch.outputs import captured, flatten
from lampq.adapters.torch.recorder import record
from lampq.adapters.torch.signature import Signature
from lampq.adapters.torch.tape import Named, Tape
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason


class ForwardPass:
    """A module in evaluation mode, through its own code.

    Args:
        module: The module; put into evaluation mode on the device.
        name: What to call it in messages.
        signature: What it takes.
        execution: How it runs.

    Attributes:
        module: The module.
        weights: Parameters and buffers by name, detached; a tied tensor under its first name.
        inner: Outputs of submodules that count as outputs of the module.
    """

    def __init__(
        self, module: torch.nn.Module, name: str, signature: Signature, execution: Execution
    ) -> None:
        self._device, self._autocast = torch.device(execution.device), execution.autocast
        self.module = module.to(self._device)
        for member in module.modules():
            # Exported programs refuse eval(); they are what they are.
            member.training = False
        self._name, self._signature = name, signature
        self.weights: dict[str, torch.Tensor] = {
            key: tensor.detach() for key, tensor in (*module.named_parameters(), *module.named_buffers())
        }
        self._trainable = {key for key, t in module.named_parameters() if t.is_floating_point()}
        self.inner: tuple[str, ...] = ()

    def with_inner(self, names: tuple[str, ...]) -> ForwardPass:
        """The same with outputs of submodules among its own."""
        other = copy.copy(self)
        other.inner = tuple(dict.fromkeys((*self.inner, *names)))
        return other

    def __call__(self, weights: Named, inputs: Named) -> dict[str, torch.Tensor]:
        """Outputs by name with the given weights."""
        args, kwargs = self._signature.arguments(inputs)
        with (
            plain_attention(),
            plain_recurrence(self.module),
            plain_masks(),
            torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None),
            captured(self.module, self.inner) as inner,
        ):
            output = torch.func.functional_call(self.module, dict(weights), args, kwargs)
        return {**flatten(output), **inner}

    def record(self, weights: Named, inputs: Named, *, grad: bool) -> tuple[Tape, Named, tuple[Front, ...]]:
        """A tape, its outputs, and the tensors that stand for outputs that jump.

        Args:
            weights: Parameters and buffers by name.
            inputs: By name.
            grad: Choose operators as training would, so that autograd works through the tape.
        """
        if grad:
            # Buffers take no gradients, and some operators insist that they do not.
            leaves = {
                key: tensor.detach().requires_grad_(key in self._trainable) for key, tensor in weights.items()
            }
            with torch.enable_grad():
                tape, outputs = record(self, leaves, inputs, module=self.module)
        else:
            with torch.no_grad():
                tape, outputs = record(self, weights, inputs, module=self.module)
        ahead = fronts(tape, tape.floating(weights, inputs))
        return tape.with_outputs({front.name: front.slot for front in ahead}), outputs, ahead

    @contextlib.contextmanager
    def fed(self, inputs: Named) -> Iterator[None]:
        """Say in one line what the module has against its inputs.

        Raises:
            AdapterError: The module fails on them.
        """
        try:
            yield
        except AdapterError:
            raise
        # Modules raise whatever a wrong input makes them stumble over.
        except Exception as err:
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
            raise AdapterError(
                f"{self._name} fails on inputs of shape {shapes}: {reason(err, last=True)}"
            ) from err

    def digest(self) -> str:
        """SHA-256 of names, types, shapes and values of all parameters and buffers."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            tensor = self.weights[name].cpu().contiguous()
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()
