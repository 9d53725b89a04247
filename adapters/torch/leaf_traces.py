"""Fisher traces of any function in PyTorch whose weights are leaves: one gradient per sample and draw.

For models of other formats whose graph has been rebuilt in PyTorch; modules have the faster
`lampq.adapters.torch.fisher`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch

from lampq.adapters.torch.labels import directions
from lampq.core.divergence import unmasked
from lampq.core.errors import AdapterError
from lampq.core.measure import Progress, quiet

# Float32 kernels of two libraries differ by rounding alone.
AGREEMENT = 1e-3


class UnsupportedOperatorError(Exception):
    """An operator, or a use of one, that has no differentiable form here."""


def leaf_traces(
    graph: Callable[[torch.Tensor], torch.Tensor],
    leaves: Mapping[str, torch.Tensor],
    chunks: Iterable[np.ndarray],
    samples: np.ndarray,
    *,
    labels: str,
    draws: int,
    seed: int,
    truth: np.ndarray | None = None,
    progress: Progress = quiet,
) -> dict[str, float]:
    """Trace of the Fisher information of each leaf, nats, averaged over samples.

    Args:
        graph: From a batch to logits (samples, classes).
        leaves: Weights by name, requiring gradients.
        chunks: The samples in the batches that the graph takes; the last may be filled up at its end.
        samples: Number of each sample in the whole data set, shape (S,).
        labels: See `lampq.adapters.torch.labels`, as the next three.
        draws: Backward passes per sample.
        seed: Of the draws.
        truth: Labels of the data.
        progress: Told after every batch.

    Raises:
        AdapterError: Gradients are not finite; names the layer.
    """
    weights = list(leaves.values())
    sums = torch.zeros(len(weights), dtype=torch.float64)
    done = 0
    for chunk in chunks:
        logits = graph(torch.from_numpy(np.array(chunk)))
        count = min(len(chunk), len(samples) - done)
        place = slice(done, done + count)
        vectors = directions(
            logits[:count],
            labels=labels,
            draws=draws,
            seed=seed,
            samples=samples[place],
            truth=None if truth is None else truth[place],
        )
        for vector in vectors:
            for sample in range(count):
                scalar = (logits[sample].double() * vector[sample]).sum()
                found = torch.autograd.grad(scalar, weights, retain_graph=True, allow_unused=True)
                sums += torch.stack([_square(gradient) for gradient in found])
        done += count
        progress("Fisher information", done, len(samples))
    if not torch.isfinite(sums).all():
        name = list(leaves)[int((~torch.isfinite(sums)).nonzero()[0])]
        raise AdapterError(f"the gradients of layer {name} are not finite; check the data")
    return dict(zip(leaves, (sums / len(samples)).tolist(), strict=True))


def disagreement(
    graph: Callable[[torch.Tensor], torch.Tensor],
    batch: np.ndarray,
    expected: np.ndarray,
    *,
    tolerance: float = AGREEMENT,
) -> str:
    """Why a rebuilt graph's logits are not to be believed, or empty.

    Args:
        graph: From a batch to logits.
        batch: A batch.
        expected: What the format's own runtime makes of it.
        tolerance: Largest difference, relative to the largest logit.
    """
    try:
        with torch.no_grad():
            found = graph(torch.from_numpy(np.array(batch))).numpy()
    except UnsupportedOperatorError as err:
        return f"{err} has no differentiable form here"
    # A wrong guess about an operator shows in many ways; each means the same.
    except (RuntimeError, IndexError, ValueError, TypeError) as err:
        return f"the interpreter fails: {(str(err).splitlines() or [''])[0][:100]}"
    if found.shape != expected.shape:
        return f"the interpreter's logits have shape {found.shape}, the runtime's {expected.shape}"
    largest = float(np.abs(expected).max(where=np.isfinite(expected), initial=0.0))
    difference = float(np.abs(unmasked(found) - unmasked(expected)).max())
    if difference <= tolerance * max(largest, 1e-6):
        return ""
    return f"the interpreter's logits differ from the runtime's by {difference:.2g}"


def _square(gradient: torch.Tensor | None) -> torch.Tensor:
    if gradient is None:
        return torch.zeros((), dtype=torch.float64)
    return torch.linalg.vector_norm(gradient, dtype=torch.float64).square()
