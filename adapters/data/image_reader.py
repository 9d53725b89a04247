"""Images of a folder, decoded batch by batch; those of one size together where a model takes any."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from lampq.adapters.data.arrays import element_type
from lampq.adapters.data.images import ImageTransform, pillow, read_file, upright_size
from lampq.adapters.data.labelled import Labelled, fill_batches
from lampq.adapters.data.preprocess import Preprocess
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, MissingExtraError
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.messages import reason

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageReader:
    """Chosen images of a folder, decoded as they are asked for.

    Attributes:
        root: The folder.
        names: Relative paths of the chosen images, in the order of the samples.
        labels: Their labels, int64, or None.
        input_name: The input they are for.
        runs: How many of the images in a row share a transform, and that transform.
        threads: Decoder threads.
        held: Content of images that lie in no files, by name.
        digests: SHA-256 of the files read so far, by name.
    """

    root: Path
    names: Sequence[str]
    labels: np.ndarray | None
    input_name: str
    runs: Sequence[tuple[int, ImageTransform]]
    threads: int
    held: Mapping[str, bytes] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pillow()

    def count(self) -> int:
        """Number of samples."""
        return len(self.names)

    def batches(self, size: int) -> Iterator[Labelled]:
        """Samples of one shape in order, `size` at a time; at most three batches are in memory."""
        first = 0
        for length, transform in self.runs:
            shape, dtype = transform.sample_shape, transform.dtype
            fill = self._filler(first, transform)
            for start, images in fill_batches(fill, length, size, shape, dtype, self.threads):
                start += first
                labels = None if self.labels is None else self.labels[start : start + len(images)]
                yield Labelled(Batch.of(images, name=self.input_name), labels)
            first += length

    def digest(self) -> str:
        """SHA-256 over names and contents; files not decoded yet are read for it."""
        total = hashlib.sha256()
        for name in self.names:
            if name not in self.digests:
                self.digests[name] = hashlib.sha256(content_of(self.root, name, self.held)).digest()
            total.update(os.fsencode(name) + b"\0" + self.digests[name])
        return total.hexdigest()

    def _filler(self, first: int, transform: ImageTransform) -> Callable[[int, np.ndarray], None]:
        def fill(index: int, out: np.ndarray) -> None:
            name = self.names[first + index]
            content = content_of(self.root, name, self.held)
            self.digests[name] = hashlib.sha256(content).digest()
            decoded(self.root / name, lambda: transform.from_bytes(content, out))

        return fill


def content_of(root: Path, name: str, held: Mapping[str, bytes]) -> bytes:
    """Content of an image, which is held or lies in a file.

    Raises:
        AdapterError: The file cannot be read.
    """
    return held[name] if name in held else read_file(root / name)


def image_runs(
    root: Path,
    names: Sequence[str],
    record: Preprocess,
    spec: InputSpec,
    held: Mapping[str, bytes] = MappingProxyType({}),
) -> tuple[np.ndarray, list[tuple[int, ImageTransform]], Preprocess]:
    """How images become samples: all to one size, or each in its own where neither model nor record says one.

    Args:
        root: The folder.
        names: Images in it.
        record: Preprocessing.
        spec: The input.
        held: Content of images that lie in no files, by name.

    Returns:
        The order in which images of one size are side by side, as indices into `names`; the runs of `ImageReader`
        in that order; and the record, complete but for the size where images keep theirs.

    Raises:
        AdapterError: An image cannot be read, or cannot keep its size in this input; names it.
    """
    dtype = element_type(spec)
    if not _any_size(record, spec):
        complete = record.for_input(spec)
        return (
            np.arange(len(names)),
            [(len(names), ImageTransform.from_preprocess(complete, dtype=dtype))],
            complete,
        )
    sizes = [_size(root / name, content_of(root, name, held)) for name in names]
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        by_size.setdefault(size, []).append(index)
    runs = []
    for size, members in by_size.items():
        complete = record.for_input(spec, image_size=size)
        if complete.size != size:
            raise AdapterError(
                f"image {root / names[members[0]]} is {size[0]}x{size[1]}, which the model's input {spec} has no "
                f"place for; give the size to use (--image-size)"
            )
        runs.append((len(members), ImageTransform.from_preprocess(complete, dtype=dtype)))
    order = np.array([index for members in by_size.values() for index in members])
    return order, runs, complete if len(runs) == 1 else dataclasses.replace(complete, size=None)


def decoded(path: Path, work: Callable[[], T]) -> T:
    """What decoding an image gives.

    Raises:
        AdapterError: It cannot be decoded; names it.
    """
    try:
        return work()
    except MissingExtraError:
        raise
    # Decoders meet broken files with errors of every kind.
    except Exception as err:
        text = reason(err)
        why = "no image in a known format" if text.startswith("cannot identify image file") else text
        raise AdapterError(f"image {path}: cannot be decoded ({why}); remove or replace it") from err


def _any_size(record: Preprocess, spec: InputSpec) -> bool:
    layout = record.layout or spec.layout or ("NCHW" if len(spec.shape) == 4 else None)
    if record.size is not None or layout is None or len(layout) != len(spec.shape):
        return False
    axes = dict(zip(layout, spec.shape, strict=True))
    return axes["H"] is None or axes["W"] is None


def _size(path: Path, content: bytes) -> tuple[int, int]:
    return decoded(path, lambda: upright_size(content))
