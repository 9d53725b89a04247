"""Where a forward pass multiplies by its weights, found on the tape and not by module class.

Every use is brought to one form: rows of inputs X, shape (groups, rows, inputs), that a weight block maps
to rows of outputs Y, shape (groups, rows, outputs). A linear layer has one group; a convolution is the same
after its patches are laid out as rows; its groups, or the experts of a batched weight, are the groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

Box = tuple[tuple[int, int], ...]
"""First and last index along each axis of a weight: the part that a use touches."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Use:
    """One operator that multiplies activations by a weight.

    Attributes:
        weight: Name of the parameter.
        operation: Index of the operator on its tape.
        form: `linear`, `conv`, `transposed` (a transposed convolution), `lookup`, or `whole`: every sample has a weight
            of its own.
        data: Index of the activation among the operator's leaves.
        factor: Index of the weight among them.
        turned: The weight is the left factor, so that rows lie along the last axis.
        shared: A batched product whose batch entries all take the same matrix.
        channel_axis: Axis of the parameter with one entry per output channel.
        box: Part of the parameter that is used.
        multiplications: Multiply-accumulates in the recorded batch.
        module: Path of the module that was running.
        convolution: Stride, padding, dilation, groups and kernel of a convolution.
    """

    weight: str
    operation: int
    form: str
    data: int
    factor: int
    turned: bool
    shared: bool
    channel_axis: int
    box: Box
    multiplications: int
    module: str
    convolution: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, tuple[int, ...]] | None = None

    def units(self, activation: torch.Tensor) -> torch.Tensor:
        """The activation with one entry per row (per image of a convolution) first, shape (U, ...)."""
        if self.form != "linear":
            return activation
        if self.turned:
            activation = activation.mT
        if activation.dim() == 2:
            return activation
        return activation.flatten(0, 1) if self.shared else activation.transpose(0, 1)

    def inputs(self, activation: torch.Tensor) -> torch.Tensor:
        """X, shape (groups, rows, inputs)."""
        if self.form == "transposed":
            return self._pixels(activation)
        if self.convolution is not None:
            return _patches(activation, *self.convolution)
        return self._rows(activation)

    def outputs(self, result: torch.Tensor) -> torch.Tensor:
        """Y, or its gradient, from the operator's result, shape (groups, rows, outputs)."""
        if self.form == "transposed" and self.convolution is not None:
            # Each pixel is spread over a patch of the result: the transpose of taking patches.
            return _patches(result, *self.convolution)
        if self.convolution is not None:
            return self._pixels(result)
        return self._rows(result)

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels of images as rows, shape (groups, images * positions, channels of the group)."""
        groups = 1 if self.convolution is None else self.convolution[3]
        split = images.reshape(images.shape[0], groups, images.shape[1] // groups, -1)
        return split.permute(1, 0, 3, 2).flatten(1, 2)

    def _rows(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.turned:
            tensor = tensor.mT
        if tensor.dim() == 2:
            return tensor.unsqueeze(0)
        return tensor.reshape(1, -1, tensor.shape[-1]) if self.shared else tensor

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The operator's weight factor as (groups, inputs, outputs), so that Y = X @ matrix (+ bias)."""
        if self.convolution is not None:
            groups = self.convolution[3]
            return weight.reshape(groups, weight.shape[0] // groups, -1).mT
        if self.turned:
            weight = weight.mT
        if weight.dim() == 2:
            return weight.unsqueeze(0)
        return weight[:1] if self.shared else weight


def whole(weight: str, shape: Sequence[int]) -> Use:
    """The use of a weight of which every sample has one."""
    return Use(
        weight=weight,
        operation=-1,
        form="whole",
        data=0,
        factor=0,
        turned=False,
        shared=False,
        channel_axis=0,
        box=tuple((0, length - 1) for length in shape),
        multiplications=0,
        module="",
    )


def _patches(
    images: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    kernel: Sequence[int],
) -> torch.Tensor:
    """Patches of a convolution as rows, shape (groups, images * positions, channels * kernel)."""
    if any(padding):
        images = functional.pad(images, [p for pad in reversed(padding) for p in (pad, pad)])
    images = images.contiguous()
    count, channels, *extent = images.shape
    positions = [
        (length - step * (width - 1) - 1) // skip + 1
        for length, width, skip, step in zip(extent, kernel, stride, dilation, strict=True)
    ]
    strides = images.stride()
    view = images.as_strided(
        (groups, count, *positions, channels // groups, *kernel),
        (
            strides[1] * (channels // groups),
            strides[0],
            *(s * skip for s, skip in zip(strides[2:], stride, strict=True)),
            strides[1],
            *(s * step for s, step in zip(strides[2:], dilation, strict=True)),
        ),
        images.storage_offset(),
    )
    return view.reshape(groups, count * math.prod(positions), -1)
