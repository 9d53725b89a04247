"""First-order changes of the outputs when single layers are quantized, all options from one backward pass.

Layer i at an option gives W_hat X_hat where it gave W X. With G the gradient of v^T z at the layer's output, v^T z
moves by <G^T X_hat, W_hat> - <G^T X, W> to first order. The weight gradient G^T X_hat of a single sample is one
product, whatever the number of weight widths; each width is an inner product with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from lampq.adapters.torch.devices import widest
from lampq.adapters.torch.gradients import Rows, sample_gradients
from lampq.adapters.torch.replay import Pass, passes
from lampq.adapters.torch.variant import Replayable
from lampq.core.measuring.candidates import Dequantized
from lampq.core.measuring.setting import RoundedLayers
from lampq.core.quantizing.quantizer import Quantized
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.activation_rule import LAST, ActivationRule
from lampq.core.values.batch import Batch
from lampq.core.values.progress import Progress, quiet

# Errors of weights that are kept between uses, in bytes; more are made of codes again and again.
_ERRORS_BYTES = 1 << 29


def gradient_rows(
    model: Replayable,
    batch: Batch,
    candidates: RoundedLayers,
    readout: Readout,
    draws: Draws,
    *,
    batch_size: int = 16,
    progress: Progress = quiet,
) -> Iterator[dict[str, np.ndarray]]:
    """How far each option moves the outputs along each direction, to first order, a few samples at a time.

    Args:
        model: The float model.
        batch: Inputs, samples first.
        candidates: What to round to.
        readout: What the outputs mean.
        draws: Directions to take gradients along.
        batch_size: Samples per pass.
        progress: Told after every batch.

    Yields:
        Layer -> changes of v^T z, float32, shape (samples, directions, W, A), for the samples in order.

    Raises:
        AdapterError: A weight lies in a way that has no per-sample gradients here.
    """
    draws = draws.of(batch.samples)
    tensors = {name: model.tensors[model.parameters[name]].detach().float() for name in candidates}
    size = sum(4 * tensors[name].numel() * len(rounded) for name, (rounded, _) in candidates.items())
    moves = {
        name: _Moves.of(tensors[name], *candidates[name], ready=size <= _ERRORS_BYTES) for name in candidates
    }
    done = 0
    for part in passes(model, batch, batch_size=batch_size, activations=False):
        vectors = readout.directions(part.reference(readout), draws.part(slice(done, done + part.count)))
        yield _rows_of(part, vectors, moves)
        done += part.count
        progress("gradients", done, batch.samples)


def _rows_of(part: Pass, vectors: Iterable[Batch], moves: Mapping[str, _Moves]) -> dict[str, np.ndarray]:
    """Rows of the samples of one pass, by layer."""
    directions = 0
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in moves}

    def counted() -> Iterator[Batch]:
        nonlocal directions
        for vector in vectors:
            directions += 1
            yield vector

    def add(name: str, uses: list[Rows]) -> None:
        if name in moves:
            rows[name].append(moves[name].changes(uses)[: part.count])

    part.backward(counted(), add)
    return {
        name: torch.stack(rows[name], 1).div_(part.scale).float().cpu().numpy()
        if rows[name]
        # The outputs do not depend on this layer.
        else np.zeros((part.count, directions, *move.table), dtype=np.float32)
        for name, move in moves.items()
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Moves:
    """What a layer can be rounded to: W weights, A rules.

    Attributes:
        weight: The float weight W.
        rounded: W_hat, one after the other.
        rules: Of the input.
        ready: The errors, where they are kept.
    """

    weight: torch.Tensor
    rounded: Sequence[np.ndarray]
    rules: tuple[ActivationRule | None, ...]
    ready: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        weight: torch.Tensor,
        rounded: Sequence[np.ndarray],
        rules: Sequence[ActivationRule | None],
        *,
        ready: bool,
    ) -> _Moves:
        moves = cls(weight=weight, rounded=rounded, rules=tuple(rules))
        return dataclasses.replace(moves, ready=moves.errors()) if ready else moves

    def errors(self) -> torch.Tensor:
        """W_hat - W, one after the other, float32, shape (W, size); with W behind them where some rule rounds the
        input.
        """
        if self.ready is not None:
            return self.ready
        rows = self.weight.new_empty((len(self.rounded) + self._rounds, self.weight.numel()))
        for index in range(len(self.rounded)):
            self._write(index, rows[index].view(self.weight.shape)).sub_(self.weight)
        if self._rounds:
            rows[-1] = self.weight.ravel()
        return rows

    def _write(self, index: int, values: torch.Tensor) -> torch.Tensor:
        """Fill an array with the rounded weight of an index."""
        if isinstance(self.rounded, Dequantized):
            codes, axis = self.rounded.codes[index], self.rounded.channel_axis
            if isinstance(codes, Quantized) and len(codes.scale) == values.shape[axis]:
                return _write_codes(codes, axis, values)
        return values.copy_(torch.from_numpy(self.rounded[index]))

    @property
    def _rounds(self) -> bool:
        return any(rule is not None for rule in self.rules)

    @property
    def table(self) -> tuple[int, int]:
        """Numbers of weights and rules."""
        return len(self.rounded), len(self.rules)

    def changes(self, uses: list[Rows]) -> torch.Tensor:
        """<G^T X_hat, W_hat> - <G^T X, W> of every sample, as exact as the device has it, shape (samples, W, A)."""
        count, errors = self.table[0], self.errors()
        plain = self._products(uses, errors)
        columns = []
        for rule in self.rules:
            if rule is None:
                columns.append(plain[:, :count])
                continue
            products = self._products([_rounded(rows, rule) for rows in uses], errors)
            columns.append(products[:, :count] + (products[:, count:] - plain[:, count:]))
        return torch.stack(columns, -1)

    def _products(self, uses: list[Rows], errors: torch.Tensor) -> torch.Tensor:
        """<G^T X, error> of every sample, shape (samples, errors)."""
        parts = sample_gradients(uses, self.weight.shape)
        return torch.cat([(part.flatten(1) @ errors.T).to(widest(part)) for part in parts])


def _write_codes(quantized: Quantized, axis: int, values: torch.Tensor) -> torch.Tensor:
    """`Quantized.dequantized` in the layout of the weight, in few passes over memory: one scale a channel."""
    shape = values.shape
    rows = torch.from_numpy(quantized.codes).view(shape[axis], *shape[:axis], *shape[axis + 1 :])
    scale = torch.from_numpy(quantized.scale * quantized.step)
    spread = scale.view([-1 if place == axis else 1 for place in range(len(shape))]).to(values.device)
    return values.copy_(rows.movedim(0, axis)).sub_(quantized.offset / quantized.step).mul_(spread)


def _rounded(rows: Rows, rule: ActivationRule) -> Rows:
    """The same use with its input rounded; the tokens of a linear layer are its rows, those of a convolution images."""
    if rows.use.form == "lookup":
        return rows
    inputs = rows.inputs.float()
    by_sample = inputs.transpose(0, 1)
    if rows.use.form == "linear" and len(inputs) == 1:
        moved = rule.apply(inputs[0], LAST, torch)[None]
    elif isinstance(rule, ActivationGrid) or rows.use.form == "linear":
        moved = rule.apply(inputs, LAST, torch)
    else:
        flat = by_sample.reshape(len(by_sample), -1)
        moved = rule.apply(flat, LAST, torch).reshape(by_sample.shape).transpose(0, 1).contiguous()
    return dataclasses.replace(rows, inputs=moved)
