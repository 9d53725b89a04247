"""Fisher traces of a model that has no gradients, from forward passes alone.

The KL divergence between a model's predictions and those with slightly moved weights is, to second order,
d^T F d / 2 with F the true Fisher information: labels drawn from the model itself, no data labels needed.
Random signs u have E[u u^T] = I, so E[u^T F u] is the trace of F (Hutchinson's estimator).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference
from lampq.core.values.errors import RecordError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.layer import Layer
from lampq.core.values.progress import Progress, quiet


def forward_fisher(
    model: Model,
    reference: Reference,
    *,
    draws: int = 2,
    seed: int = 0,
    relative_step: float = 1e-2,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> dict[str, float]:
    """Estimate the trace of each layer's Fisher information from `draws` forward passes per layer.

    tr(F_i) = E_u[2 KL(p_W || p_{W + e u}) / e^2], with u = +-1 on the weights of layer i alone. The estimate
    is unbiased up to a term of relative order e; one draw scatters by sqrt(2) ||F||_F / tr(F), which is small
    where no single direction dominates. Signs depend on the seed and the layer's place alone, so that shards
    of the data measured apart average to what one run over all of it gives.

    Source: Hutchinson (1989), doi:10.1080/03610918908812806, applied to the second-order expansion of the KL.

    Args:
        model: The float model.
        reference: What the float model makes of the inputs.
        draws: Sign vectors per layer, at least 1.
        seed: Seeds the signs.
        relative_step: Step e in units of the layer's root mean square weight. Much smaller steps drown in
            the rounding of float32 logits, much larger ones leave the second-order regime.
        journal: Keeps every draw.
        progress: Told after every draw.

    Returns:
        Layer name -> trace in nats, averaged over samples, float64 arithmetic, >= 0.

    Raises:
        RecordError: Logits are not finite, or `draws` or `relative_step` is not positive.
    """
    if draws < 1:
        raise RecordError(f"{draws} draws: a Fisher trace needs at least one")
    if not (np.isfinite(relative_step) and relative_step > 0):
        raise RecordError(f"relative step {relative_step}: must be above 0")
    layers = model.layers()
    position = {layer.name: index for index, layer in enumerate(layers)}
    steps, tables = np.zeros((len(layers), 1)), {"damage": np.zeros((len(layers), draws))}
    own = journal.within("forward")

    def candidates() -> Iterator[tuple[str, int, np.ndarray]]:
        for index, layer in enumerate(layers):
            weight = model.weight(layer.name)
            step = steps[index, 0] = relative_step * _typical_weight(layer)
            rng = np.random.default_rng((seed, index))
            for draw in range(draws):
                stepped = _stepped(weight, step, rng)
                if not own.recall(f"{index} {draw}", tables, (index, draw)):
                    yield layer.name, draw, stepped

    for name, draw, outputs in model.sweep(reference.inputs, candidates()):
        index = position[name]
        reference.checked(outputs, f"the model with layer {name} slightly moved")
        tables["damage"][index, draw] = reference.damage(outputs)
        own.keep(f"{index} {draw}", tables, (index, draw))
        progress("Fisher traces", index * draws + draw + 1, draws * len(layers))
    traces = (2 * tables["damage"] / (draws * steps**2)).sum(axis=1)
    return dict(zip(position, traces.tolist(), strict=True))


def _typical_weight(layer: Layer) -> float:
    """Root mean square weight; where all are zero, that of a usual initialization, 1 / sqrt(inputs)."""
    mean_square = float(layer.weight.second_moment.mean())
    return (mean_square if mean_square > 0 else layer.channels / layer.size) ** 0.5


def _stepped(weight: np.ndarray, step: float, rng: np.random.Generator) -> np.ndarray:
    """`weight` plus `step` times random signs, float32."""
    bits = np.unpackbits(np.frombuffer(rng.bytes(-(-weight.size // 8)), dtype=np.uint8), count=weight.size)
    signs = bits.reshape(weight.shape).astype(np.float32)
    signs *= np.float32(2 * step)
    signs -= np.float32(step)
    signs += weight
    return signs
