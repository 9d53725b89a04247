"""A model file, read and understood: what everything else here starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lampq.adapters.onnx import inputs
from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.session import Runtime
from lampq.adapters.onnx.sites import Left, Site
from lampq.core.values.head import Head
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.output_spec import OutputSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """A model file, read and understood.

    Attributes:
        container: The file.
        flow: Its normalized graph, which nothing changes; its outputs are those that are judged.
        sites: Its quantizable weights.
        kinds: Their kinds, in the same order.
        left: The weights left alone.
        all_specs: Its inputs, fixed ones included.
        constants: Values of the inputs that are fixed, by name.
        outputs: Its outputs, and the inner tensors that stand for some of them.
        heads: What they mean.
        jumping: Names of the outputs behind discontinuous operators.
        runtime: How sessions are opened.
        embeddings: Whether tables that are looked up count as layers.
        requantize: Whether weights that are quantized already count, as the floats that they stand for.
    """

    container: Container
    flow: Flow
    sites: tuple[Site, ...]
    kinds: tuple[str, ...]
    left: tuple[Left, ...]
    all_specs: tuple[InputSpec, ...]
    constants: Mapping[str, np.ndarray]
    outputs: tuple[OutputSpec, ...]
    heads: tuple[Head, ...]
    jumping: frozenset[str]
    runtime: Runtime
    embeddings: bool = True
    requantize: bool = False

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """The inputs that must be fed."""
        return tuple(spec for spec in self.all_specs if spec.name not in self.constants)

    @property
    def judged(self) -> tuple[Head, ...]:
        """The heads that count, in the order of the outputs."""
        return tuple(head for head in self.heads if head.judged)

    @property
    def batch(self) -> int | None:
        """Samples per run where an input fixes them, otherwise None."""
        return next((spec.batch for spec in self.specs if spec.batch is not None), None)

    def fixed(self, samples: int) -> dict[str, np.ndarray]:
        """The fixed inputs of a run of some samples, samples first."""
        return inputs.constant_feeds(self.all_specs, self.constants, samples)

    def feeds(self, arrays: Mapping[str, np.ndarray], samples: int) -> dict[str, np.ndarray]:
        """What the graph is fed: inputs of some samples, samples first, and those that are fixed."""
        return inputs.laid_out({**arrays, **self.fixed(samples)}, inputs.sample_axes(self.flow))
