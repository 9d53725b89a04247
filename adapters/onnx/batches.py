"""Batches of any length through a model that takes a fixed or a limited number of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec

# Multiply-accumulates per run where the model takes any number of samples: enough to fill the processor, few
# enough for its caches.
_WORK = 2e10
_FEWEST, _USUAL, _MOST = 4, 16, 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Some samples of a batch.

    Attributes:
        array: The samples as the model wants them; the last is repeated where the model fixes their number.
        count: How many are real.
    """

    array: np.ndarray
    count: int


def chunk_size(macs: float | None, samples: int, workers: int) -> int:
    """Samples per run for a model that takes any number.

    Args:
        macs: Multiply-accumulates per sample, or None where unknown.
        samples: Samples in the batch.
        workers: Threads that share the chunks.
    """
    size = int(min(max(_WORK / macs, _FEWEST), _MOST)) if macs else _USUAL
    return max(1, min(size, -(-samples // workers)))


def check(batch: np.ndarray, spec: InputSpec, name: str) -> np.ndarray:
    """The batch as an array of the input's type.

    Args:
        batch: Samples first.
        spec: The input of the model.
        name: The model, for messages.

    Raises:
        AdapterError: The batch is empty, or its shape or type does not fit the input.
    """
    batch = np.asarray(batch)
    if not spec.accepts(batch.shape) or not len(batch):
        raise AdapterError(
            f"{name} takes {spec}, not a batch of shape {tuple(batch.shape)}; check the image size and the layout"
        )
    wanted = np.dtype(spec.dtype)
    if not np.can_cast(batch.dtype, wanted, "same_kind"):
        raise AdapterError(f"{name} takes {spec}, not {batch.dtype}; convert the data")
    return batch.astype(wanted, copy=False)


def split(batch: np.ndarray, size: int, *, fixed: bool) -> list[Chunk]:
    """Chunks of a batch.

    Args:
        batch: Samples first.
        size: Samples per chunk.
        fixed: Whether the last chunk is filled up to that size.
    """
    chunks = []
    for start in range(0, len(batch), size):
        part = np.ascontiguousarray(batch[start : start + size])
        count = len(part)
        if fixed and count < size:
            part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
        chunks.append(Chunk(array=part, count=count))
    return chunks


def join(
    outputs: Sequence[np.ndarray], chunks: Sequence[Chunk], *, log_probabilities: bool, name: str
) -> np.ndarray:
    """Logits of a batch from the outputs of its chunks.

    Args:
        outputs: One array per chunk: samples, classes, and any further axes of length 1.
        chunks: The chunks.
        log_probabilities: The outputs are probabilities: take their logarithm.
        name: The model, for messages.

    Returns:
        Float32, shape (samples, classes).

    Raises:
        AdapterError: The outputs are no table of one row per sample.
    """
    rows = []
    for output, chunk in zip(outputs, chunks, strict=True):
        if output.ndim < 2 or len(output) != len(chunk.array) or any(d != 1 for d in output.shape[2:]):
            raise AdapterError(
                f"{name} gives an output of shape {output.shape} for {len(chunk.array)} samples; expected "
                "(samples, classes): name another with output=, or export with a free batch axis"
            )
        rows.append(output[: chunk.count].reshape(chunk.count, -1))
    logits = np.concatenate(rows).astype(np.float32, copy=False)
    if log_probabilities:
        logits = np.log(np.maximum(logits, np.finfo(np.float32).tiny))
    return logits
