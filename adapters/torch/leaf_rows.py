"""Rows of gradients of any function in PyTorch whose weights are leaves: one gradient per sample and direction.

For models of other formats whose graph has been rebuilt in PyTorch; modules have the faster
`lampq.adapters.torch.gradient_rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from lampq.adapters.torch.leaf_traces import Graph, arrays_of, projection, tensors_of
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import NoGradientsError
from lampq.core.values.progress import Progress, quiet

Candidates = Mapping[str, tuple[Sequence[np.ndarray], Sequence[object]]]
"""Layer -> its weights, dequantized, at W widths, and the rules of its input: none but None, which leaves it float."""


def leaf_rows(
    graph: Graph,
    leaves: Mapping[str, torch.Tensor],
    chunks: Iterable[Batch],
    candidates: Candidates,
    readout: Readout,
    samples: np.ndarray,
    *,
    labels: str,
    draws: int,
    seed: int,
    progress: Progress = quiet,
) -> Iterator[dict[str, np.ndarray]]:
    """First-order changes of the outputs, see `lampq.core.measuring.gradient_rows.GradientRows`.

    Args:
        graph: The model.
        leaves: Weights by name, requiring gradients; layers that have none do not move the outputs.
        chunks: The samples in the batches that the graph takes; the last may be filled up at its end.
        candidates: What to round to.
        readout: What the outputs mean.
        samples: Number of each sample in the whole data set, shape (S,).
        labels: See `Readout.directions`, as the next two.
        draws: Backward passes per sample.
        seed: Of the draws.
        progress: Told after every batch.

    Yields:
        Layer -> float32, shape (samples, directions, W, 1).

    Raises:
        NoGradientsError: Inputs are to be rounded.
    """
    if any(rule is not None for _, rules in candidates.values() for rule in rules):
        raise NoGradientsError("inputs that are rounded have no gradients here")
    errors = {name: _errors(leaves[name], candidates[name][0]) for name in candidates if name in leaves}
    wanted = [leaves[name] for name in errors]
    done = 0
    for chunk in chunks:
        count = min(chunk.samples, len(samples) - done)
        outputs = graph(tensors_of(chunk))
        vectors = list(
            readout.directions(
                readout.reference(arrays_of(outputs, count), chunk.take(range(count))),
                labels=labels,
                draws=draws,
                seed=seed,
                samples=samples[done : done + count],
            )
        )
        shape = (count, len(vectors))
        rows = {
            name: np.zeros((*shape, len(weights), 1), np.float32) for name, (weights, _) in candidates.items()
        }
        for d, vector in enumerate(vectors):
            for sample in range(count):
                scalar = projection(outputs, vector, sample)
                gradients = torch.autograd.grad(scalar, wanted, retain_graph=True, allow_unused=True)
                for (name, error), gradient in zip(errors.items(), gradients, strict=True):
                    if gradient is not None:
                        rows[name][sample, d, :, 0] = (error @ gradient.reshape(-1)).numpy()
        yield rows
        done += count
        progress("gradients", done, len(samples))


def _errors(leaf: torch.Tensor, weights: Sequence[np.ndarray]) -> torch.Tensor:
    """W_hat - W, one after the other, shape (W, size)."""
    float_weight = leaf.detach().numpy()
    return torch.from_numpy(
        np.stack([np.subtract(weight, float_weight, dtype=np.float32).ravel() for weight in weights])
    )
