"""Squared norms of per-sample weight gradients, without the gradients where that is cheaper.

A layer that maps rows X to rows Y has, for one sample, the weight gradient G^T X with G the gradient of Y.
Its squared norm is <X X^T, G G^T>: with T rows of k inputs and n outputs that takes T T (k + n)
multiplications, the gradient itself T k n and the room to hold it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lampq.adapters.torch.devices import widest
from lampq.adapters.torch.uses import Box, Use
from lampq.core.values.errors import AdapterError

# Per-sample gradients are made for so many samples at a time that they take about this many bytes.
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """One use of a weight in a batch.

    Attributes:
        use: The use.
        inputs: X by sample, shape (groups, samples, rows, inputs).
        gradients: G by sample, shape (groups, samples, rows, outputs).
    """

    use: Use
    inputs: torch.Tensor
    gradients: torch.Tensor


def squared_norms(uses: Sequence[Rows]) -> torch.Tensor:
    """||dL/dW||^2 per sample, float64, shape (samples,).

    Args:
        uses: All uses of one weight; those of the same part of it add up before they are squared.
    """
    parts: dict[Box, list[Rows]] = {}
    for rows in uses:
        parts.setdefault(rows.use.box, []).append(rows)
    norms = [_part_norms(*_joined(group)) for group in parts.values()]
    return torch.stack(norms).sum(dim=0)


def sample_gradients(uses: Sequence[Rows], shape: Sequence[int]) -> Iterator[torch.Tensor]:
    """Per-sample gradients of one weight, some samples at a time, shape (samples, *shape), float32.

    Args:
        uses: All uses of the weight.
        shape: Its shape.
    """
    size = int(torch.Size(shape).numel())
    samples = uses[0].inputs.shape[1]
    step = max(1, _CHUNK_BYTES // (4 * size))
    whole = tuple((0, length - 1) for length in shape)
    for start in range(0, samples, step):
        part = slice(start, min(start + step, samples))
        if len(uses) == 1 and uses[0].use.box == whole:
            # Nothing to add up.
            yield _product(uses[0], part, torch.Size((part.stop - part.start, *shape)))
            continue
        total = uses[0].inputs.new_zeros((part.stop - part.start, *shape), dtype=torch.float32)
        for rows in uses:
            window = total[(slice(None), *(slice(low, high + 1) for low, high in rows.use.box))]
            window += _product(rows, part, window.shape)
        yield total


def _product(rows: Rows, part: slice, shape: torch.Size) -> torch.Tensor:
    """G^T X of some samples in the layout of the stored weight, samples first."""
    gradients, inputs = rows.gradients[:, part].float(), rows.inputs[:, part].float()
    if rows.use.form == "linear" and len(shape) == 3 and rows.use.channel_axis == 1:
        # Made the way it is stored: turning it around would be a copy.
        return (inputs.mT @ gradients)[0]
    return _as_stored(gradients.mT @ inputs, rows.use, shape)


def _as_stored(product: torch.Tensor, use: Use, shape: torch.Size) -> torch.Tensor:
    """(groups, samples, outputs, inputs) in the layout of the stored weight, samples first."""
    axis = use.channel_axis
    if use.form == "whole":
        return product.reshape(shape)
    if use.form == "transposed":
        return product.transpose(0, 1).mT.reshape(-1, *shape[1:])
    if use.form == "conv" and axis == 0:
        return product.transpose(0, 1).reshape(shape)
    if use.form != "conv" and len(shape) == 3:
        return product[0] if axis == 0 else product[0].mT
    if use.form != "conv" and len(shape) == 4 and len(product) == shape[1] and axis > 0:
        return product.transpose(0, 1) if axis == 1 else product.transpose(0, 1).mT
    raise AdapterError(
        f"{use.weight}: no diagonal for a weight of {len(shape) - 1} axes with channels on axis {axis}"
    )


def _joined(group: Sequence[Rows]) -> tuple[torch.Tensor, torch.Tensor]:
    if len(group) == 1:
        return group[0].inputs, group[0].gradients
    return torch.cat([r.inputs for r in group], dim=2), torch.cat([r.gradients for r in group], dim=2)


def _part_norms(inputs: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    groups, samples, rows, width = inputs.shape
    outputs, wide = gradients.shape[-1], widest(inputs)
    if rows == 1:
        norms = inputs.float().square().sum((2, 3), dtype=wide)
        return (norms * gradients.float().square().sum((2, 3), dtype=wide)).sum(0)
    inputs, gradients = inputs.float(), gradients.float()
    if rows * (width + outputs) <= width * outputs:
        gram = (inputs @ inputs.mT) * (gradients @ gradients.mT)
        return gram.sum((2, 3), dtype=wide).sum(0)
    chunks = []
    step = max(1, _CHUNK_BYTES // (4 * groups * width * outputs))
    for start in range(0, samples, step):
        product = gradients[:, start : start + step].mT @ inputs[:, start : start + step]
        chunks.append(product.square_().sum((2, 3), dtype=wide).sum(0))
    return torch.cat(chunks)
