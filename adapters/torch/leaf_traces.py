"""Fisher traces of any function in PyTorch whose weights are leaves: one gradient per sample and direction.

For models of other formats whose graph has been rebuilt in PyTorch; modules have the faster
`lampq.adapters.torch.fisher`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch, Group
from lampq.core.values.errors import AdapterError
from lampq.core.values.progress import Progress, quiet

# Float32 kernels of two libraries differ by rounding alone.
AGREEMENT = 1e-3

Outputs = Mapping[str, torch.Tensor]
"""Judged outputs by name, canonical, samples first."""


class UnsupportedOperatorError(Exception):
    """An operator, or a use of one, that has no differentiable form here."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Some samples that a graph takes at once.

    Attributes:
        feeds: What the graph is fed; further samples may fill up the batch at its end.
        inputs: The real samples by the names of the model's inputs: masks may be among them.
        samples: How many real samples there are.
    """

    feeds: Sequence[np.ndarray]
    inputs: Group
    samples: int


def leaf_traces(
    graph: Callable[[Sequence[np.ndarray]], Outputs],
    leaves: Mapping[str, torch.Tensor],
    pieces: Iterable[Piece],
    readout: Readout,
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
        graph: From feeds to judged outputs.
        leaves: Weights by name, requiring gradients.
        pieces: The samples.
        readout: What the outputs mean.
        samples: Number of each sample in the whole data set, shape (S,).
        labels: See `lampq.core.readouts.directions`, as the next three.
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
    for piece in pieces:
        outputs = graph(piece.feeds)
        place = slice(done, done + piece.samples)
        vectors = readout.directions(
            readout.reference(_arrays(outputs, piece.samples), Batch([piece.inputs])),
            labels=labels,
            draws=draws,
            seed=seed,
            samples=samples[place],
            truth=None if truth is None else truth[place],
        )
        for scalar in _products(outputs, vectors, piece.samples):
            gradients = torch.autograd.grad(scalar, weights, retain_graph=True, allow_unused=True)
            sums += torch.stack([_square(gradient) for gradient in gradients])
        done += piece.samples
        progress("Fisher information", done, len(samples))
    if not torch.isfinite(sums).all():
        name = list(leaves)[int((~torch.isfinite(sums)).nonzero()[0])]
        raise AdapterError(f"the gradients of layer {name} are not finite; check the data")
    return dict(zip(leaves, (sums / len(samples)).tolist(), strict=True))


def disagreement(
    graph: Callable[[Sequence[np.ndarray]], Outputs],
    feeds: Sequence[np.ndarray],
    expected: Batch,
    *,
    tolerance: float = AGREEMENT,
) -> str:
    """Why a rebuilt graph's outputs are not to be believed, or empty.

    Args:
        graph: From feeds to judged outputs.
        feeds: A batch.
        expected: What the format's own runtime makes of its real samples.
        tolerance: Largest difference, relative to the largest value of the output.
    """
    try:
        with torch.no_grad():
            outputs = _arrays(graph(feeds), expected.samples)
    except UnsupportedOperatorError as err:
        return f"{err} has no differentiable form here"
    # A wrong guess about an operator shows in many ways; each means the same.
    except (RuntimeError, IndexError, ValueError, TypeError) as err:
        return f"the interpreter fails: {(str(err).splitlines() or [''])[0][:100]}"
    for name in expected.names:
        found, known = outputs[name], expected[name]
        if found.shape != known.shape:
            return f"the interpreter's {name} has shape {found.shape}, the runtime's {known.shape}"
        difference = float(np.abs(found - known).max())
        if not difference <= tolerance * max(float(np.abs(known).max()), 1e-6):
            return f"the interpreter's {name} differs from the runtime's by {difference:.2g}"
    return ""


def _arrays(outputs: Outputs, samples: int) -> Batch:
    return Batch([{name: tensor.detach()[:samples].numpy() for name, tensor in outputs.items()}])


def _products(outputs: Outputs, vectors: Iterable[Batch], samples: int) -> Iterator[torch.Tensor]:
    """For every direction and sample the sum over outputs of <v, z>."""
    for vector in vectors:
        for sample in range(samples):
            parts = [
                (outputs[name][sample].double() * torch.from_numpy(vector[name][sample])).sum()
                for name in vector.names
            ]
            yield torch.stack(parts).sum()


def _square(gradient: torch.Tensor | None) -> torch.Tensor:
    if gradient is None:
        return torch.zeros((), dtype=torch.float64)
    return torch.linalg.vector_norm(gradient, dtype=torch.float64).square()
