"""A model file with some weights replaced: what gradients, writers and sizes start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import flow, sites
from lampq.adapters.onnx.opened import Opened
from lampq.adapters.onnx.records import Records
from lampq.adapters.onnx.requantize import parse
from lampq.adapters.onnx.sites import Site
from lampq.core.measuring.model import Model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """A model file with some weights replaced.

    Attributes:
        opened: The file.
        records: What is known of its weights.
        replaced: Other arrays by layer name, float32.
    """

    opened: Opened
    records: Records
    replaced: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The .onnx file."""
        return self.opened.container.path

    def weight(self, name: str) -> np.ndarray:
        """The array of a layer, float32, in the shape of its record: a copy, to be kept or changed at will.

        Raises:
            AdapterError: No layer is so called.
        """
        self.records.site(name)
        replaced = self.replaced.get(name)
        return self.records.stored(name) if replaced is None else replaced.copy()

    def fresh(self) -> tuple[ir.Model, tuple[Site, ...]]:
        """A graph of one's own to change, as the file has it, normalized, with the sites of `opened`, alike in name
        and order.
        """
        opened = self.opened
        graph = flow.trace(parse(opened.container, requantize=opened.requantize))
        own, _ = sites.find(graph, embeddings=opened.embeddings)
        return graph.model, own


class Varied(Model, Protocol):
    """A model of this folder, as its other files see it."""

    @property
    def variant(self) -> Variant:
        """The file and the weights that differ from it."""
