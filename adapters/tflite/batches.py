"""Batches of samples for models that run a fixed number at once, mostly one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lampq.adapters.tflite.interface import Interface
from lampq.adapters.tflite.runtime import Session
from lampq.core.values.errors import AdapterError

# Samples at once where the model takes any number.
_MANY = 16
# Float kernels may add in another order for another batch; more than this is another function.
_SAME = 1e-3


class Batches:
    """How the samples of a batch go through a model.

    Args:
        path: The model's file, for messages.
        interface: Its input and output.
    """

    def __init__(self, path: Path, interface: Interface) -> None:
        self.path = path
        self.interface = interface

    def checked(self, batch: np.ndarray) -> np.ndarray:
        """A batch as the input tensor has it: of its type, quantized where it is.

        Raises:
            AdapterError: It is empty or of another shape or kind.
        """
        spec, array = self.interface.spec, np.asarray(batch)
        if len(array.shape) == 0 or len(array) == 0:
            raise AdapterError(f"{self.path}: the batch is empty; give at least one sample")
        if not spec.accepts(array.shape):
            raise AdapterError(f"{self.path}: the input is {spec}, the batch has shape {array.shape}")
        if spec.dtype != "float32" and array.dtype.kind not in "iub":
            raise AdapterError(f"{self.path}: the input is {spec}, the batch holds {array.dtype}")
        if array.dtype.kind not in "fiub":
            raise AdapterError(f"{self.path}: the batch holds {array.dtype}; numbers are expected")
        if self.interface.input_scale is not None:
            return self.interface.input_scale.quantized(array.astype(np.float32))
        return np.ascontiguousarray(array, dtype=spec.dtype)

    def chunks(self, array: np.ndarray, size: int | None = None) -> list[np.ndarray]:
        """The samples in native batches; the last sample fills up the last one."""
        size = size or self.interface.native_batch
        found = [array[start : start + size] for start in range(0, len(array), size)]
        missing = size - len(found[-1])
        if missing:
            found[-1] = np.concatenate([found[-1], np.repeat(found[-1][-1:], missing, axis=0)])
        return found

    def joined(self, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
        """Logits (samples, classes), float32, from the outputs of the chunks."""
        rows = np.concatenate([output.reshape(len(output), -1) for output in outputs])[:samples]
        if self.interface.output_scale is not None:
            return self.interface.output_scale.dequantized(rows)
        return np.ascontiguousarray(rows, dtype=np.float32)

    def run(self, session: Session, array: np.ndarray) -> np.ndarray:
        """Logits of checked samples, a native batch at a time."""
        return self.joined([session.run([chunk])[0] for chunk in self.chunks(array)], len(array))

    def run_resized(self, many: Session, native: Session, array: np.ndarray) -> np.ndarray:
        """Logits of checked samples, many at a time and the rest in native batches."""
        whole = len(array) // _MANY * _MANY
        parts = (
            [self.joined([many.run([chunk])[0]], _MANY) for chunk in self.chunks(array[:whole], _MANY)]
            if whole
            else []
        )
        if whole < len(array):
            parts.append(self.run(native, array[whole:]))
        return np.concatenate(parts)

    def resized(self, content: bytes, native: Session) -> Session | None:
        """A session for many samples at once, if it gives what single runs give; otherwise None.

        Files declare a free number of samples more often than their operators allow one.
        """
        session = Session(content)
        try:
            trial = self.trial(_MANY)
            together = self.joined(session.run([trial]), _MANY)
        except (AdapterError, ValueError):
            return None
        alone = self.run(native, trial)
        if together.shape != alone.shape:
            return None
        return session if np.abs(together - alone).max() <= _SAME * max(np.abs(alone).max(), 1e-6) else None

    def trial(self, samples: int) -> np.ndarray:
        """Random samples that fit the input."""
        shape = (samples, *(d or 1 for d in self.interface.spec.shape[1:]))
        rng = np.random.default_rng(0)
        if self.interface.spec.dtype == "float32":
            return self.checked(rng.standard_normal(shape, dtype=np.float32))
        return self.checked(rng.integers(0, 2, shape))
