"""Which rows of a layer's input belong to which sample.

Models lay samples out differently: sample after sample, sample inside token (`nn.MultiheadAttention`),
windows of samples (Swin). The layout is measured, not assumed: change one sample, and see which rows
change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lampq.adapters.torch.chunks import samples_of
from lampq.adapters.torch.tape import Named, Operation, Tape, Values
from lampq.adapters.torch.uses import Use


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Rows as (outer, samples, inner).

    Attributes:
        inner: Neighbouring rows of one sample; None where all rows of a sample lie together.
    """

    inner: int | None

    def by_sample(self, rows: torch.Tensor, samples: int, repeat: int = 1) -> torch.Tensor:
        """Rows of each sample together: (groups, rows, n) to (groups, samples, rows / samples, n).

        Args:
            rows: Shape (groups, rows, n).
            samples: Samples in the batch.
            repeat: Rows made of each unit that the layout was measured on (positions of a convolution).
        """
        groups, count, width = rows.shape
        inner = count // samples if self.inner is None else self.inner * repeat
        split = rows.reshape(groups, count // (samples * inner), samples, inner, width)
        if split.shape[1] == 1:
            return split[:, 0]
        if inner == 1:
            return split[:, :, :, 0].transpose(1, 2)
        return split.transpose(1, 2).flatten(2, 3)

    def first_samples(self, units: torch.Tensor, samples: int, count: int) -> torch.Tensor:
        """The units (see `Use.units`) of the first `count` samples of a batch of `samples`."""
        if count == samples:
            return units
        inner = len(units) // samples if self.inner is None else self.inner
        split = units.reshape(-1, samples, inner, *units.shape[1:])
        return split[:, :count].flatten(0, 2)


def measure_layouts(
    tape: Tape,
    uses: Sequence[Use],
    weights: Named,
    one: Named,
    other: Named,
) -> tuple[list[Layout | None], dict[str, torch.Tensor]]:
    """The layout of each use's rows; None where a sample's rows depend on other samples.

    Args:
        tape: Recorded on batches like these.
        uses: Found on that tape.
        weights: Parameters and buffers by name.
        one: Inputs.
        other: Others, different in every sample.

    Returns:
        The layouts, and the outputs of `one`.
    """
    samples = samples_of(one)
    base, outputs = _activations(tape, uses, weights, one)
    changed: list[list[torch.Tensor]] = [[] for _ in uses]
    for sample in range(min(samples, 2)):
        mixed = {name: _replaced(tensor, other[name], sample) for name, tensor in one.items()}
        moved, _ = _activations(tape, uses, weights, mixed)
        for rows, a, b in zip(changed, base, moved, strict=True):
            rows.append(_differing_rows(a, b))
    return [find_layout(rows, samples) for rows in changed], outputs


def _replaced(tensor: torch.Tensor, other: torch.Tensor, sample: int) -> torch.Tensor:
    mixed = tensor.clone()
    mixed[sample] = other[sample]
    return mixed


def find_layout(changed: Sequence[torch.Tensor], samples: int) -> Layout | None:
    """The layout in which only rows of sample i change with sample i; None if there is none.

    Args:
        changed: For the first samples, which rows change with them, bool, shape (rows,).
        samples: Samples in the batch.
    """
    rows = len(changed[0])
    if rows % samples:
        return None
    most = rows // samples
    # Sample after sample is tried first: it decides where few rows tell anything.
    for inner in [most, *(i for i in range(1, most) if most % i == 0)]:
        owner = torch.arange(rows) // inner % samples
        if not any((flags & (owner != sample)).any() for sample, flags in enumerate(changed)):
            return Layout(inner=None if inner == most else inner)
    return None


def _activations(
    tape: Tape, uses: Sequence[Use], weights: Named, inputs: Named
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    at = {use.operation: use for use in uses}
    seen: dict[int, torch.Tensor] = {}

    def call(index: int, operation: Operation, values: Values) -> Any:
        if index in at:
            seen[index] = at[index].units(values[operation.read_slot(at[index].data)])
        return operation.call(values, {})

    values = tape.play(tape.start(weights, inputs), call=call)
    return [seen[use.operation] for use in uses], tape.results(values)


def _differing_rows(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    differing = one != other
    return differing.reshape(len(differing), -1).any(dim=1).cpu()
