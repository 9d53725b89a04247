"""Second-order damage of rounding weights and input of a layer together: E_n[(sum g dY)^2] / 2.

With dY = W_hat X_hat - W X the difference of the layer's output and g the gradient of log p there, the sum over all
entries of g dY is how far log p moves to first order; the mean of its square is twice the damage to second order. The
cross term of the two errors is in dY. For one sample, sum g dY = <G^T X_hat, W_hat> - <G^T X, W>, so a backward pass
and one product per input width serve all weight widths at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lampq.adapters.torch.gradients import Rows, sample_gradients
from lampq.adapters.torch.replay import passes
from lampq.adapters.torch.rounding import rounded
from lampq.adapters.torch.variant import Varied
from lampq.core.readouts.readout import Readout
from lampq.core.values.activation_grid import ActivationGrid, ActivationRule
from lampq.core.values.batch import Batch
from lampq.core.values.progress import Progress, quiet

Candidates = Mapping[str, tuple[Sequence[np.ndarray], Sequence[ActivationRule | None]]]
"""Layer -> its weights, dequantized, at W widths, and the rules of its input at A widths; None leaves it float."""


def joint_fisher(
    model: Varied,
    batch: Batch,
    candidates: Candidates,
    readout: Readout,
    *,
    truth: np.ndarray | None = None,
    draws: int = 2,
    seed: int = 0,
    samples: Sequence[int] | None = None,
    batch_size: int = 16,
    progress: Progress = quiet,
) -> dict[str, np.ndarray]:
    """Damage of every pair of weights and rule of each layer, one layer at a time.

    Args:
        model: The float model.
        batch: Inputs, samples first.
        candidates: What to round to.
        readout: What the outputs mean.
        truth: Labels of the data; None draws them from the predictions (`lampq.core.readouts`).
        draws: Backward passes per batch where labels are drawn.
        seed: Seeds the draws.
        samples: Number of each sample in the whole data set, where the batch is a shard of it.
        batch_size: Samples per pass.
        progress: Told after every batch.

    Returns:
        Layer -> nats, averaged over samples, float64, shape (W, A).

    Raises:
        AdapterError: A weight lies in a way that has no per-sample gradients here.
    """
    numbers = np.arange(batch.samples) if samples is None else np.asarray(samples)
    collector = _Collector(model, candidates)
    done = 0
    for part in passes(model, batch, batch_size=batch_size, activations=False):
        place = slice(done, done + part.count)
        vectors = readout.directions(
            part.reference(readout),
            draws=draws,
            seed=seed,
            samples=numbers[place],
            truth=None if truth is None else np.asarray(truth)[place],
        )
        collector.scale = part.scale
        part.backward(vectors, collector.add)
        done += part.count
        progress("joint Fisher scores", done, batch.samples)
    return {name: total / (2 * done) for name, total in collector.totals.items()}


class _Collector:
    """Sums of squares over samples.

    Attributes:
        totals: Layer -> sum of (sum g dY)^2, shape (W, A).
        scale: Factor of the gradients at hand.
    """

    def __init__(self, model: Varied, candidates: Candidates) -> None:
        self._rules = {name: rules for name, (_, rules) in candidates.items()}
        # Float weights last: their product with the float input is what all others differ from.
        self._weights = {}
        self._shapes = {}
        for name, (weights, _) in candidates.items():
            whole = [*weights, model.weight(name)]
            self._weights[name] = torch.from_numpy(np.stack(whole).reshape(len(whole), -1).astype(np.float32))
            self._shapes[name] = whole[-1].shape
        self.totals = {
            name: np.zeros((len(weights), len(rules))) for name, (weights, rules) in candidates.items()
        }
        self.scale = 1.0

    def add(self, name: str, uses: list[Rows]) -> None:
        """Take in one layer's rows and gradients of a batch."""
        if name not in self.totals:
            return
        base = self._products(name, uses)[:, -1]
        for column, rule in enumerate(self._rules[name]):
            given = uses if rule is None else [_rounded(rows, rule) for rows in uses]
            moved = (self._products(name, given)[:, :-1] - base[:, None]) / self.scale
            self.totals[name][:, column] += moved.square().sum(0).cpu().numpy()

    def _products(self, name: str, uses: list[Rows]) -> torch.Tensor:
        """<G^T X, W> of every sample with every weight, float64, shape (samples, W + 1)."""
        weights = self._weights[name].to(uses[0].inputs.device)
        parts = sample_gradients(uses, self._shapes[name])
        return torch.cat([(part.flatten(1) @ weights.T).double() for part in parts])


def _rounded(rows: Rows, rule: ActivationRule) -> Rows:
    """The same use with its input rounded; the tokens of a linear layer are its rows, those of a convolution images."""
    if rows.use.form == "lookup":
        return rows
    inputs = rows.inputs.float()
    if isinstance(rule, ActivationGrid) or rows.use.form == "linear":
        return dataclasses.replace(rows, inputs=rounded(rule, inputs, -1))
    by_image = inputs.transpose(0, 1)
    flat = by_image.reshape(len(by_image), -1)
    return dataclasses.replace(
        rows, inputs=rounded(rule, flat, -1).reshape(by_image.shape).transpose(0, 1).contiguous()
    )
