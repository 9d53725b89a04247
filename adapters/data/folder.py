"""A folder of images: what is in it, and reading it batch by batch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lampq.adapters.data.batch import Batch, fill_batches
from lampq.adapters.data.images import SUFFIXES, ImageTransform, pillow, read_file
from lampq.core.values.errors import AdapterError, MissingExtraError
from lampq.core.values.messages import reason


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FolderIndex:
    """The images of a folder in an order that no file system decides.

    Attributes:
        root: The folder.
        names: Paths relative to it with forward slashes, sorted by class, then by name.
        labels: Index of each image's class, int64, or None for a flat folder.
        class_names: Names of the sub-folders, sorted, those without images included; None for a flat folder.
    """

    root: Path
    names: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None


def scan_folder(root: Path) -> FolderIndex:
    """List a folder's images; sub-folders are classes. Hidden entries and other files are passed over.

    Raises:
        AdapterError: There is no image, there are images beside and inside sub-folders, or they lie deeper.
    """
    flat, folders = _list(root)
    inside = {name: _list(root / name) for name in folders}
    if any(images for images, _ in inside.values()):
        if flat:
            raise AdapterError(
                f"data {root}: {flat[0]} lies beside sub-folders that hold images; "
                "keep either class sub-folders or a flat folder"
            )
        names = tuple(f"{folder}/{image}" for folder in folders for image in inside[folder][0])
        counts = [len(inside[folder][0]) for folder in folders]
        labels = np.repeat(np.arange(len(folders), dtype=np.int64), counts)
        return FolderIndex(root=root, names=names, labels=labels, class_names=tuple(folders))
    if flat:
        return FolderIndex(root=root, names=tuple(flat), labels=None, class_names=None)
    deeper = next((f"{root / name}" for name, (_, below) in inside.items() if below), None)
    advice = f"; is it {deeper} you mean?" if deeper else f"; it looks for {', '.join(SUFFIXES)}"
    raise AdapterError(f"data {root}: no images in this folder or its sub-folders{advice}")


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the images and of the sub-folders in a folder."""
    images, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.name.lower().endswith(SUFFIXES):
                    images.append(entry.name)
    except OSError as err:
        raise AdapterError(f"data {folder}: cannot be listed ({err.strerror or err})") from err
    return sorted(images), sorted(folders)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FolderReader:
    """Chosen images of a folder, decoded as they are asked for.

    Attributes:
        root: The folder.
        names: Relative paths of the chosen images, in the order of the samples.
        labels: Their labels, int64, or None.
        transform: From a file to a sample.
        threads: Decoder threads.
        digests: SHA-256 of the files read so far, by name.
    """

    root: Path
    names: Sequence[str]
    labels: np.ndarray | None
    transform: ImageTransform
    threads: int
    digests: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pillow()

    def count(self) -> int:
        """Number of samples."""
        return len(self.names)

    def batches(self, size: int) -> Iterator[Batch]:
        """Samples in order, `size` at a time; at most three batches are in memory."""
        shape, dtype = self.transform.sample_shape, self.transform.dtype
        for start, inputs in fill_batches(self._fill, len(self.names), size, shape, dtype, self.threads):
            stop = start + len(inputs)
            yield Batch(inputs=inputs, labels=None if self.labels is None else self.labels[start:stop])

    def digest(self) -> str:
        """SHA-256 over names and contents; files not decoded yet are read for it."""
        total = hashlib.sha256()
        for name in self.names:
            if name not in self.digests:
                self.digests[name] = hashlib.sha256(read_file(self.root / name)).digest()
            total.update(os.fsencode(name) + b"\0" + self.digests[name])
        return total.hexdigest()

    def _fill(self, index: int, out: np.ndarray) -> None:
        path = self.root / self.names[index]
        content = read_file(path)
        self.digests[self.names[index]] = hashlib.sha256(content).digest()
        try:
            self.transform.from_bytes(content, out)
        except MissingExtraError:
            raise
        # Decoders meet broken files with errors of every kind.
        except Exception as err:
            raise AdapterError(
                f"image {path}: cannot be decoded ({_reason(err)}); remove or replace it"
            ) from err


def _reason(err: Exception) -> str:
    text = reason(err)
    return "no image in a known format" if text.startswith("cannot identify image file") else text
