"""Fisher traces of any function in PyTorch whose weights are leaves: one gradient per sample and draw.

For models of other formats whose graph has been rebuilt in PyTorch; modules have the faster
`lampq.adapters.torch.fisher`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch

from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.progress import Progress, quiet

# Float32 kernels of two libraries differ by rounding alone.
AGREEMENT = 1e-3


class UnsupportedOperatorError(Exception):
    """An operator, or a use of one, that has no differentiable form here."""


Graph = Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]
"""From inputs by name to the judged outputs by name, canonical, samples first."""


def leaf_traces(
    graph: Graph,
    leaves: Mapping[str, torch.Tensor],
    chunks: Iterable[Batch],
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
        graph: The model.
        leaves: Weights by name, requiring gradients.
        chunks: The samples in the batches that the graph takes; the last may be filled up at its end.
        readout: What the outputs mean.
        samples: Number of each sample in the whole data set, shape (S,).
        labels: See `Readout.directions`, as the next three.
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
        outputs = graph(tensors_of(chunk))
        count = min(chunk.samples, len(samples) - done)
        place = slice(done, done + count)
        kept = chunk.take(range(count))
        vectors = readout.directions(
            readout.reference(arrays_of(outputs, count), kept),
            labels=labels,
            draws=draws,
            seed=seed,
            samples=samples[place],
            truth=None if truth is None else truth[place],
        )
        for vector in vectors:
            for sample in range(count):
                scalar = projection(outputs, vector, sample)
                found = torch.autograd.grad(scalar, weights, retain_graph=True, allow_unused=True)
                sums += torch.stack([_square(gradient) for gradient in found])
        done += count
        progress("Fisher information", done, len(samples))
    if not torch.isfinite(sums).all():
        name = list(leaves)[int((~torch.isfinite(sums)).nonzero()[0])]
        raise AdapterError(f"the gradients of layer {name} are not finite; check the data")
    return dict(zip(leaves, (sums / len(samples)).tolist(), strict=True))


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    """The arrays of a batch of one group, as tensors of their own."""
    return {name: torch.from_numpy(np.array(array)) for name, array in batch.groups[0].items()}


def arrays_of(outputs: Mapping[str, torch.Tensor], count: int) -> Batch:
    """Outputs of the first samples as arrays, float64."""
    return Batch([{name: t[:count].detach().double().cpu().numpy() for name, t in outputs.items()}])


def projection(outputs: Mapping[str, torch.Tensor], vector: Batch, sample: int) -> torch.Tensor:
    """Sum over all outputs of a sample of the products with its direction."""
    parts = [
        (outputs[name][sample].double() * torch.from_numpy(np.array(array[sample]))).sum()
        for name, array in vector.groups[0].items()
    ]
    return torch.stack(parts).sum()


def disagreement(
    graph: Graph,
    batch: Batch,
    expected: Batch,
    *,
    tolerance: float = AGREEMENT,
) -> str:
    """Why a rebuilt graph's outputs are not to be believed, or empty.

    Args:
        graph: The rebuilt model.
        batch: A batch of one shape.
        expected: What the format's own runtime makes of it.
        tolerance: Largest difference of an output, relative to its largest entry.
    """
    try:
        with torch.no_grad():
            outputs = graph(tensors_of(batch))
    except UnsupportedOperatorError as err:
        return f"{err} has no differentiable form here"
    # A wrong guess about an operator shows in many ways; each means the same.
    except (RuntimeError, IndexError, ValueError, TypeError) as err:
        return f"the interpreter fails: {(str(err).splitlines() or [''])[0][:100]}"
    for name, right in expected.groups[0].items():
        array = outputs[name].numpy()
        if array.shape != right.shape:
            return f"the interpreter's {name} has shape {array.shape}, the runtime's {right.shape}"
        # Classes that are ruled out are minus infinity in both.
        with np.errstate(invalid="ignore"):
            difference = float(np.where(array == right, 0, np.abs(array - right)).max())
        largest = float(np.abs(right).max(where=np.isfinite(right), initial=0.0))
        if not difference <= tolerance * max(largest, 1e-6):
            return f"the interpreter's {name} differs from the runtime's by {difference:.2g}"
    return ""


def _square(gradient: torch.Tensor | None) -> torch.Tensor:
    if gradient is None:
        return torch.zeros((), dtype=torch.float64)
    return torch.linalg.vector_norm(gradient, dtype=torch.float64).square()
