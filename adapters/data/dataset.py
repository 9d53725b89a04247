"""Data of any source as one kind of value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lampq.adapters.data.constants import Constant, with_constants
from lampq.adapters.data.labelled import Labelled, join
from lampq.adapters.data.preprocess import Preprocess
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError

# Numbers of a constant input that a summary spells out.
_SHOWN = 8


class Reader(Protocol):
    """What differs from one kind of source to another."""

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of all samples where they are known before reading, int64."""

    def count(self) -> int:
        """Number of samples."""

    def batches(self, size: int) -> Iterator[Labelled]:
        """Samples in order, `size` at a time, or fewer where their shape changes."""

    def digest(self) -> str:
        """SHA-256 of what is read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Samples that can be read again and again, always the same in the same order.

    Attributes:
        source: What it was read from, as it was given.
        kind: `folder`, `arrays`, `function`, `texts`, `pairs` or `synthetic`.
        class_names: Name of each label, or None where there are no names.
        preprocess: What is done to the images, complete; None where the samples came ready, and for a
            function, where that shows only on reading.
        available: Samples the source has in all, or None where only a pass could tell.
        seed: Of the choice of samples, or None where all are used.
        reader: Reads them.
        constants: Inputs that are the same for every sample, by name.
        notes: Remarks on how they came about.
        pictures: The samples before they were preprocessed, uint8 (N, H, W, C), where they were made here.
    """

    source: str
    kind: str
    class_names: tuple[str, ...] | None
    preprocess: Preprocess | None
    available: int | None
    seed: int | None
    reader: Reader
    constants: Mapping[str, Constant] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pictures: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of samples. A function is read through once to count them."""
        return self.reader.count()

    def batches(self, size: int = 32) -> Iterator[Labelled]:
        """Read the samples in order, `size` at a time; the last batch, and the last of one shape, may have fewer.

        Raises:
            AdapterError: A sample cannot be read or is not fit for the model; names it.
        """
        if size < 1:
            raise AdapterError(f"batches of {size} samples; at least 1 is needed")
        return (
            Labelled(with_constants(batch.inputs, self.constants), batch.labels)
            for batch in self.reader.batches(size)
        )

    def load(self) -> Labelled:
        """All samples at once, those of one shape side by side; they have to fit in memory."""
        size = 256 if self.kind == "function" else len(self)
        loaded = join(list(self.reader.batches(size))).by_shape()
        return Labelled(with_constants(loaded.inputs, self.constants), loaded.labels)

    def inputs(self) -> Batch:
        """Inputs of all samples; see `load`."""
        return self.load().inputs

    def labels(self) -> np.ndarray | None:
        """Labels of all samples in the order of `inputs`, int64, or None; reads a function once more, but no image."""
        return self.load().labels if self.kind == "function" else self.reader.labels

    @property
    def names(self) -> tuple[str, ...]:
        """File of each sample in the order of `inputs`, relative to the source; empty where samples are no files."""
        return tuple(getattr(self.reader, "names", ()))

    def check_classes(self, outputs: int) -> str | None:
        """Compare the classes with the outputs of a model.

        Labels that a function yields are not known here; use `check_labels` on its batches.

        Args:
            outputs: Number of logits.

        Returns:
            A remark where top-1 needs care, otherwise None.

        Raises:
            AdapterError: There are more classes than outputs.
        """
        labels = self.reader.labels
        if labels is None:
            return None
        classes = len(self.class_names) if self.class_names else int(labels.max()) + 1
        if classes > outputs:
            raise AdapterError(
                f"data {self.source}: {classes} classes, but the model has {outputs} outputs; "
                "use data with the model's classes, or a flat folder without labels"
            )
        if self.class_names and classes < outputs:
            return f"data {self.source}: {classes} classes for {outputs} outputs; class i counts as output i"
        return None

    def summary(self) -> dict[str, Any]:
        """Plain values that say what was read, for the provenance of results; reads what was not read yet."""
        return {
            "source": self.source,
            "kind": self.kind,
            "samples": len(self),
            "available": self.available,
            "seed": self.seed,
            "classes": len(self.class_names) if self.class_names else None,
            "preprocess": self.preprocess.to_json() if self.preprocess else None,
            "digest": self.reader.digest(),
            **({"constants": self._constants()} if self.constants else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    def _constants(self) -> dict[str, Any]:
        return {name: _shown(constant.value) for name, constant in self.constants.items()}


def _shown(value: np.ndarray) -> Any:
    return value.tolist() if value.size <= _SHOWN else f"{value.dtype}{list(value.shape)}"
