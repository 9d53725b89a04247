"""Data of any source as one kind of value."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lampq.adapters.data.arrays import ArrayReader, check_labels, element_type, load_npz, prepare
from lampq.adapters.data.batch import Batch, join
from lampq.adapters.data.folder import FolderReader, scan_folder
from lampq.adapters.data.function import FunctionReader, load_function
from lampq.adapters.data.images import ImageTransform
from lampq.adapters.data.preprocess import Preprocess
from lampq.adapters.data.select import choose_samples
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import InputSpec


class Reader(Protocol):
    """What differs from one kind of source to another."""

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of all samples where they are known before reading, int64."""

    def count(self) -> int:
        """Number of samples."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Samples in order, `size` at a time."""

    def digest(self) -> str:
        """SHA-256 of what is read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Samples that can be read again and again, always the same in the same order.

    Attributes:
        source: What it was read from, as it was given.
        kind: `folder`, `arrays` or `function`.
        class_names: Name of each label, or None where there are no names.
        preprocess: What is done to the images, complete; None where the samples came ready, and for a
            function, where that shows only on reading.
        available: Samples the source has in all, or None where only a pass could tell.
        seed: Of the choice of samples, or None where all are used.
        reader: Reads them.
    """

    source: str
    kind: str
    class_names: tuple[str, ...] | None
    preprocess: Preprocess | None
    available: int | None
    seed: int | None
    reader: Reader

    def __len__(self) -> int:
        """Number of samples. A function is read through once to count them."""
        return self.reader.count()

    def batches(self, size: int = 32) -> Iterator[Batch]:
        """Read the samples in order, `size` at a time; the last batch may have fewer.

        Raises:
            AdapterError: A sample cannot be read or is not fit for the model; names it.
        """
        if size < 1:
            raise AdapterError(f"batches of {size} samples; at least 1 is needed")
        return self.reader.batches(size)

    def load(self) -> Batch:
        """All samples at once; they have to fit in memory."""
        return join(list(self.reader.batches(256 if self.kind == "function" else len(self))))

    def inputs(self) -> np.ndarray:
        """Inputs of all samples; see `load`."""
        return self.load().inputs

    def labels(self) -> np.ndarray | None:
        """Labels of all samples, int64, or None; reads no image for it, but a function once more."""
        if self.kind != "function":
            return self.reader.labels
        labels = [batch.labels for batch in self.reader.batches(256) if batch.labels is not None]
        return np.concatenate(labels) if labels else None

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
        }


def read_data(
    source: str | Path,
    *,
    input_spec: InputSpec,
    preprocess: Preprocess | str | None = None,
    samples: int | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Dataset:
    """Open a folder of images, an .npz file, or a function that yields batches.

    A folder's sub-folders are its classes, labelled in the order of their sorted names; a flat folder has no
    labels. An .npz holds `x` and may hold labels `y` and names `classes`. Images, and `x` of type uint8, are
    preprocessed; `x` of another type is taken as it is. A function returns an iterable of x, or of (x, y),
    with x as in an .npz.

    Args:
        source: A folder, `file.npz`, `package.module:function` or `path/to/file.py:function`.
        input_spec: The model's input; decides what the preprocessing leaves open.
        preprocess: A record or the name of a preset; None only scales to [0, 1].
        samples: Take this many: balanced over the classes from a folder or an .npz (see `choose_samples`),
            the first ones from a function, which decides its own order.
        seed: Of that choice.
        threads: Decoder threads; None: one per core, at most 8. The result does not depend on it.

    Raises:
        AdapterError: The source is missing, empty or malformed, or does not fit the model's input.
        MissingExtraError: Images are to be read or resized and Pillow is not installed.
    """
    text = str(source)
    path = Path(source)
    record = _record(preprocess)
    threads = threads or min(8, os.cpu_count() or 1)
    if path.is_dir():
        return _read_folder(path, text, input_spec, record, samples, seed, threads)
    if path.suffix.lower() == ".npz":
        inputs, labels, names = load_npz(path)
        return from_arrays(
            inputs,
            labels,
            input_spec=input_spec,
            preprocess=record,
            samples=samples,
            seed=seed,
            threads=threads,
            class_names=names,
            source=text,
        )
    if text.rpartition(":")[2].replace(".", "_").isidentifier() and ":" in text:
        return _read_function(text, input_spec, record, samples, threads)
    problem = "no kind of data" if path.exists() else "no such folder or file"
    raise AdapterError(f"data {text}: {problem}; give a folder of images, an .npz or module:function")


def from_arrays(
    inputs: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    input_spec: InputSpec,
    preprocess: Preprocess | str | None = None,
    samples: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    class_names: tuple[str, ...] | None = None,
    source: str = "arrays",
) -> Dataset:
    """Data from arrays in memory; otherwise as `read_data`.

    Args:
        inputs: Samples of the model's input, or uint8 images, first axis samples.
        labels: Class indices, shape (samples,), or None.
        input_spec: The model's input.
        preprocess: A record or the name of a preset, for uint8 images.
        samples: Take this many, balanced over the classes.
        seed: Of that choice.
        threads: Worker threads for images.
        class_names: Name of each label.
        source: Name of the data, for messages and provenance.

    Raises:
        AdapterError: The arrays are empty or do not fit the model's input or each other.
        MissingExtraError: Images are to be resized and Pillow is not installed.
    """
    ready, transform, record = prepare(inputs, input_spec, _record(preprocess), source)
    if not len(ready):
        raise AdapterError(f"data {source}: x holds no samples")
    if labels is not None:
        labels = check_labels(labels, len(ready), source, classes=len(class_names) if class_names else None)
    elif class_names:
        raise AdapterError(f"data {source}: names of classes but no labels; save labels as y")
    chosen = choose_samples(len(ready), labels, str, samples=samples, seed=seed)
    reader = ArrayReader(
        inputs=ready,
        labels=None if labels is None else labels[chosen],
        chosen=chosen,
        transform=transform,
        threads=threads or min(8, os.cpu_count() or 1),
        source=source,
    )
    return Dataset(
        source=source,
        kind="arrays",
        class_names=class_names,
        preprocess=record,
        available=len(ready),
        seed=None if samples is None else seed,
        reader=reader,
    )


def _read_folder(
    path: Path, text: str, spec: InputSpec, record: Preprocess, samples: int | None, seed: int, threads: int
) -> Dataset:
    complete = record.for_input(spec)
    index = scan_folder(path)
    chosen = choose_samples(
        len(index.names), index.labels, index.names.__getitem__, samples=samples, seed=seed
    )
    reader = FolderReader(
        root=path,
        names=[index.names[i] for i in chosen],
        labels=None if index.labels is None else index.labels[chosen],
        transform=ImageTransform.from_preprocess(complete, dtype=element_type(spec)),
        threads=threads,
    )
    return Dataset(
        source=text,
        kind="folder",
        class_names=index.class_names,
        preprocess=complete,
        available=len(index.names),
        seed=None if samples is None else seed,
        reader=reader,
    )


def _read_function(
    text: str, spec: InputSpec, record: Preprocess, samples: int | None, threads: int
) -> Dataset:
    if samples is not None and samples < 1:
        raise AdapterError(f"samples={samples}: at least 1 is needed")
    reader = FunctionReader(
        function=load_function(text),
        source=text,
        spec=spec,
        preprocess=record,
        limit=samples,
        threads=threads,
    )
    return Dataset(
        source=text,
        kind="function",
        class_names=None,
        preprocess=None,
        available=None,
        seed=None,
        reader=reader,
    )


def _record(preprocess: Preprocess | str | None) -> Preprocess:
    if isinstance(preprocess, Preprocess):
        return preprocess
    return Preprocess.preset("none" if preprocess is None else preprocess)
