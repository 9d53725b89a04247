"""Inputs of all layers, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lampq.adapters.torch.chunks import Chunk
from lampq.adapters.torch.variant import Variant
from lampq.core.values.batch import Batch


def taps(model: Variant, batch: Batch) -> Iterator[tuple[str, np.ndarray, int]]:
    """For every layer and mini-batch: its name, its input, and how often a sample uses each weight.

    A layer's input has its features last; that of a convolution is the image, channels second. It is what
    the layer is given, before it is rounded itself.
    """
    for chunk in model.runtime.chunks(batch):
        yield from _of_chunk(model, chunk)


def _of_chunk(model: Variant, chunk: Chunk) -> Iterator[tuple[str, np.ndarray, int]]:
    layers = {parameter: name for name, parameter in model.parameters.items()}
    recording = model.runtime.recording(chunk.inputs, model.tensors, products=model.rounding.products)
    call = model.rounding.call(recording)
    tape, positions = recording.tape, dict.fromkeys(layers, 0.0)
    for use, _ in recording.uses:
        positions[use.weight] += use.multiplications / (chunk.size * model.tensors[use.weight].numel())
    values, at = tape.start(model.tensors, chunk.inputs), 0
    for use, layout in recording.uses:
        if use.form == "lookup":
            continue
        # Up to one use at a time, so that the inputs of all layers need not fit in memory together.
        with torch.no_grad():
            values = tape.play(values, begin=at, end=use.operation, call=call)
            at = use.operation
            units = use.units(values[tape.operations[at].read_slot(use.data)])
            if layout is not None:
                units = layout.first_samples(units, chunk.size, chunk.count)
        yield layers[use.weight], units.float().cpu().numpy(), round(positions[use.weight])
