"""What values the activations of a model take, measured once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lampq.adapters.torch.rounding import Rounding, sites
from lampq.adapters.torch.runtime import Runtime, Weights
from lampq.core.quantizing.activation_range import BINS, Histogram
from lampq.core.values.batch import Batch
from lampq.core.values.errors import RecordError


def histograms(
    runtime: Runtime, weights: Weights, rounding: Rounding, batch: Batch, *, products: bool
) -> dict[str, Histogram]:
    """Histograms of every place where activations can be rounded, by name of the site (`Site.name`).

    The data passes twice: the first time tells the range of each histogram.

    Args:
        runtime: The model.
        weights: Its weights.
        rounding: What is rounded already; a place's own values are taken before that.
        batch: Inputs, samples first.
        products: Whether to measure the factors of attention too.

    Raises:
        RecordError: Values are not finite; names the place.
    """
    ends: dict[str, tuple[float, float]] = {}
    for name, values in _activations(runtime, weights, rounding, batch, products):
        low, high = (float(end) for end in torch.aminmax(values))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise RecordError(f"activations at {name} are not finite; check the preprocessing of the data")
        before = ends.get(name, (low, high))
        ends[name] = (min(before[0], low), max(before[1], high))
    counts = {name: np.zeros(BINS) for name in ends}
    for name, values in _activations(runtime, weights, rounding, batch, products):
        low, high = ends[name]
        if low < high:
            counts[name] += torch.histc(values.float(), BINS, low, high).cpu().double().numpy()
        else:
            counts[name][0] += values.numel()
    return {name: Histogram(low=low, high=high, counts=counts[name]) for name, (low, high) in ends.items()}


def _activations(
    runtime: Runtime, weights: Weights, rounding: Rounding, batch: Batch, products: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    # Samples that only fill up a fixed batch are copies of one that counts: they widen no range.
    for chunk in runtime.chunks(batch):
        recording = runtime.recording(chunk.inputs, weights, products=products or rounding.products)
        tape, call = recording.tape, rounding.call(recording)
        values, at = tape.start(weights, chunk.inputs), 0
        places = [site for site in sites(recording) if products or "@" not in site.name]
        for site in sorted(places, key=lambda site: site.operation):
            with torch.no_grad():
                values = tape.play(values, begin=at, end=site.operation, call=call)
            at = site.operation
            slot = tape.operations[at].slot(site.leaf)
            assert slot is not None  # Sites are tensors.
            yield site.name, values[slot]
