"""What is known of the weights of a model file, whichever of its outputs are judged: arrays and records."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx import inputs, probe, products
from lampq.adapters.onnx.batches import Shapes
from lampq.adapters.onnx.opened import Opened
from lampq.adapters.onnx.sites import Site
from lampq.adapters.replaced import named
from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.layer import Layer
from lampq.core.values.product import Product


class Records:
    """Reads and measures the weights of a model file; each record is made when it is first needed.

    Args:
        opened: The file.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._sites = {site.name: site for site in opened.sites}
        self._kinds = dict(zip(self._sites, opened.kinds, strict=True))
        self._usage: dict[Shapes, probe.Usage] = {}
        self._fixed: dict[Shapes, int | None] = {}

    def site(self, name: str) -> Site:
        """The site of a layer."""
        return named(self._sites, name, whose=str(self._opened.container.path))

    def stored(self, name: str) -> np.ndarray:
        """The stored array of a layer, float32, read from the file."""
        array = np.asarray(stored_tensor(self._sites[name]).numpy()).astype(np.float32, copy=False)
        # Small tensors lie in the outline, which nobody may change.
        return array if array.flags.writeable else array.copy()

    def size(self, name: str) -> int:
        """Number of weights of a layer."""
        return int(stored_tensor(self._sites[name]).size)

    def measure(self, name: str, weight: np.ndarray) -> Layer:
        """The record of a layer with this weight."""
        site = self._sites[name]
        positions = None if self.positions is None else self.positions.get(site.name)
        try:
            return Layer.from_weight(
                site.name,
                weight,
                kind=self._kinds[name],
                channel_axis=site.channel_axis,
                macs=None if positions is None else positions * weight.size,
                shares=site.shares,
            )
        except LampqError as err:
            raise AdapterError(f"{self._opened.container.path}: {err}") from err

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Records of the stored weights."""
        return tuple(self.measure(name, self.stored(name)) for name in self._sites)

    @cached_property
    def positions(self) -> Mapping[str, int] | None:
        """Positions of every layer, or None where the inputs' shapes or the runtime keep them unknown."""
        shapes = []
        for spec in self._opened.specs:
            if not spec.shape or None in spec.shape[1:]:
                return None
            shapes.append((spec.name, tuple(d for d in spec.shape[1:] if d is not None)))
        try:
            return self.usage(tuple(shapes)).positions
        except AdapterError:
            return None

    @cached_property
    def products(self) -> tuple[Product, ...]:
        """Products of two activations, for samples as long as the inputs say, or else as made-up ones.

        Raises:
            AdapterError: The runtime cannot run the graph.
        """
        opened = self._opened
        values = products.operands(opened.flow)
        if not values:
            return ()
        noise = next(inputs.noise(opened.flow, opened.all_specs, opened.constants))
        shapes = tuple((spec.name, noise[spec.name].shape[1:]) for spec in opened.specs)

        def feeds(samples: int) -> dict[str, np.ndarray]:
            return opened.feeds(inputs.blank(opened.specs, shapes, samples), samples)

        sides, samples = probe.measure_shapes(
            opened.flow, opened.sites, opened.runtime, feeds, values, opened.batch
        )
        return products.records(opened.flow, sides, samples)

    def known_positions(self, shapes: Shapes) -> Mapping[str, int]:
        """Positions of layers for samples of some shapes, as far as they have been measured."""
        return self._usage[shapes].positions if shapes in self._usage else {}

    def usage(self, shapes: Shapes) -> probe.Usage:
        """What the graph does with samples of these shapes.

        Raises:
            AdapterError: The runtime cannot run the graph.
        """
        if shapes not in self._usage:
            opened = self._opened

            def feeds(samples: int) -> dict[str, np.ndarray]:
                return opened.feeds(inputs.blank(opened.specs, shapes, samples), samples)

            self._usage[shapes] = probe.measure_usage(
                opened.flow, opened.sites, opened.runtime, feeds, opened.batch
            )
        return self._usage[shapes]

    def fixed_batch(self, shapes: Shapes) -> int | None:
        """The number of samples per run that the graph is fixed to, said or unsaid, or None."""
        if self._opened.batch is not None:
            return self._opened.batch
        if shapes not in self._fixed:
            self._fixed[shapes] = None
            # Blank samples may break what real ones do not.
            with contextlib.suppress(AdapterError):
                self._fixed[shapes] = self.usage(shapes).batch
        return self._fixed[shapes]


def stored_tensor(site: Site) -> ir.TensorProtocol:
    """The tensor that a site stores."""
    tensor = site.weight.const_value
    assert tensor is not None  # A site is an initializer with data.
    return tensor
