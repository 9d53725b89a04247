"""Second-order damage of rounding weights and input of a layer together: E_n[(sum g dY)^2] / 2.

With dY = W_hat X_hat - W X the difference of the layer's output and g the gradient of log p there, the sum over all
entries of g dY is how far log p moves to first order (`gradient_rows`); the mean of its square is twice the damage to
second order. The cross term of the two errors is in dY.
"""

from __future__ import annotations

import numpy as np

from lampq.adapters.torch.gradient_rows import gradient_rows
from lampq.adapters.torch.variant import Variant
from lampq.core.measuring.setting import RoundedLayers
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.progress import Progress, quiet


def joint_fisher(
    model: Variant,
    batch: Batch,
    candidates: RoundedLayers,
    readout: Readout,
    draws: Draws,
    *,
    batch_size: int = 16,
    progress: Progress = quiet,
) -> dict[str, np.ndarray]:
    """Damage of every pair of weights and rule of each layer, one layer at a time.

    Args:
        model: The float model.
        batch: Inputs, samples first.
        candidates: What to round to.
        readout: What the outputs mean.
        draws: Directions to take gradients along.
        batch_size: Samples per pass.
        progress: Told after every batch.

    Returns:
        Layer -> nats, averaged over samples, float64, shape (W, A).

    Raises:
        AdapterError: A weight lies in a way that has no per-sample gradients here.
    """
    parts = gradient_rows(model, batch, candidates, readout, draws, batch_size=batch_size, progress=progress)
    totals = {name: np.zeros((len(weights), len(rules))) for name, (weights, rules) in candidates.items()}
    for part in parts:
        for name, rows in part.items():
            totals[name] += np.square(rows, dtype=np.float64).sum(axis=(0, 1))
    return {name: total / (2 * batch.samples) for name, total in totals.items()}
