"""What gradients tell of some samples of a module (`adapters.backend.Gradients`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lampq.adapters.synthetic.observation import Observer
from lampq.adapters.torch.fisher import fisher_sums
from lampq.adapters.torch.gradient_rows import gradient_rows
from lampq.adapters.torch.observer import module_observer
from lampq.adapters.torch.relevance import module_relevance
from lampq.adapters.torch.variant import Variant
from lampq.core.measuring.setting import RoundedLayers
from lampq.core.measuring.traces import Traces
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.values.batch import Batch
from lampq.core.values.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModuleGradients:
    """A module, and the samples to take gradients for.

    Attributes:
        variant: The module.
        inputs: The samples.
    """

    variant: Variant
    inputs: Batch

    def fisher(self, readout: Readout, draws: Draws, *, progress: Progress) -> Traces:
        """Fisher traces of the weights and of what layers read."""
        sums = fisher_sums(self.variant, self.inputs, readout, draws, progress=progress)
        return Traces(kind=draws.kind, weight=sums.traces(), activation=sums.activation_traces())

    def rows(
        self, candidates: RoundedLayers, readout: Readout, draws: Draws, *, progress: Progress
    ) -> Iterator[dict[str, np.ndarray]]:
        """First-order changes of the outputs."""
        return gradient_rows(self.variant, self.inputs, candidates, readout, draws, progress=progress)

    def relevance(self, *, progress: Progress) -> dict[str, float]:
        """Relevance of the layers."""
        return module_relevance(self.variant, self.inputs, progress)

    def observer(self, most: int | None) -> Observer:
        """Forward passes of inputs like these; a module knows itself how many samples it takes."""
        return module_observer(self.variant.known_by(self.inputs))
