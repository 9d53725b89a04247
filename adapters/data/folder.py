"""What images a folder holds, in an order that no file system decides."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lampq.adapters.data.images import SUFFIXES
from lampq.core.values.errors import AdapterError


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
