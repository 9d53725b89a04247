"""Images with texts, for models that take both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.adapters.data.image_reader import ImageReader
from lampq.adapters.data.labelled import Labelled
from lampq.adapters.data.text_reader import TextReader


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairReader:
    """Pairs of an image and a text, those with texts of one length side by side.

    Attributes:
        parts: For each length of text a reader of the images and one of the texts, of equally many samples.
        labels: Labels of the samples in their order, int64, or None.
    """

    parts: Sequence[tuple[ImageReader, TextReader]]
    labels: np.ndarray | None

    @property
    def names(self) -> tuple[str, ...]:
        """File of the image of each pair."""
        return tuple(name for images, _ in self.parts for name in images.names)

    def count(self) -> int:
        """Number of pairs."""
        return sum(images.count() for images, _ in self.parts)

    def batches(self, size: int) -> Iterator[Labelled]:
        """Pairs with texts of one length in order, `size` at a time."""
        for images, texts in self.parts:
            for image, text in zip(images.batches(size), texts.batches(size), strict=True):
                yield Labelled(image.inputs.beside(text.inputs), text.labels)

    def digest(self) -> str:
        """SHA-256 over the images and tokens."""
        total = hashlib.sha256()
        for images, texts in self.parts:
            total.update(f"{images.digest()}{texts.digest()}".encode())
        return total.hexdigest()
