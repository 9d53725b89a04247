"""What a forward pass shows of a model's training data, whatever framework the model lives in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from lampq.core.values.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalized:
    """The result of a normalization: over the training data, channel c had about the mean `shift` and the deviation
    `scale`. Of batch normalization that is exact; layer normalization fixes it for a token's channels together, and
    trained ones come near it channel by channel.

    Attributes:
        values: The result, shape (samples, positions, C).
        shift: What was added to each channel, shape (C,).
        scale: What each was multiplied by, shape (C,).
    """

    values: torch.Tensor
    shift: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(
        cls, result: torch.Tensor, axis: int, shift: torch.Tensor, scale: torch.Tensor, samples: int
    ) -> Normalized:
        """From a result whose first axis holds the samples, or parts of them one after the other."""
        rows = result.movedim(axis, -1)
        return cls(values=rows.reshape(samples, -1, rows.shape[-1]), shift=shift, scale=scale)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """One forward pass.

    Attributes:
        outputs: The judged outputs by name, canonical, samples first.
        normalized: Results of normalizations in order.
        attended: What every attention gives its tokens, shape (samples, tokens, features).
    """

    outputs: Mapping[str, torch.Tensor]
    normalized: Sequence[Normalized]
    attended: Sequence[torch.Tensor]

    def first(self, count: int) -> Observation:
        """What was seen of the first samples alone."""
        return Observation(
            outputs={name: tensor[:count] for name, tensor in self.outputs.items()},
            normalized=[dataclasses.replace(item, values=item.values[:count]) for item in self.normalized],
            attended=[tensor[:count] for tensor in self.attended],
        )


class Observer(Protocol):
    """Runs a model so that gradients of all that is observed reach its inputs.

    Attributes:
        most: Samples that it takes at a time, or None: any number.
        device: Where its inputs are, and what it observes.
    """

    most: int | None
    device: torch.device

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Observation:
        """Run samples, as many as the model takes at a time."""

    def pass_bytes(self, inputs: Mapping[str, torch.Tensor]) -> int:
        """About what gradients keep of a pass of these samples, bytes."""


@runtime_checkable
class Observable(Protocol):
    """What a model has beside the protocol `Model` where it can be observed."""

    def observer(self, batch: Batch) -> Observer:
        """A function of inputs like those of a batch.

        Raises:
            NoGradientsError: This model has none after all; says why.
        """
