"""How data are to be read: for which inputs of a model, which samples, and how images become samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.data.constants import Constant, constant_inputs
from lampq.adapters.data.named_arrays import takes
from lampq.adapters.data.preprocess import Preprocess
from lampq.adapters.data.select import choose_samples
from lampq.core.values.errors import AdapterError
from lampq.core.values.input_spec import FLOATING, InputSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """How data are to be read.

    Attributes:
        specs: The model's inputs, without those that are fixed.
        preprocess: For images.
        samples: Take this many; None takes all.
        seed: Of that choice.
        threads: Worker threads.
        model: Where the model was read from, or None.
        constants: Inputs that are fixed, by name.
    """

    specs: Sequence[InputSpec]
    preprocess: Preprocess
    samples: int | None
    seed: int
    threads: int
    model: Path | None
    constants: Mapping[str, Constant]

    @classmethod
    def of(
        cls,
        source: str,
        specs: Sequence[InputSpec] | None,
        lone: InputSpec | None,
        constants: Mapping[str, Any] | None,
        preprocess: Preprocess | str | None,
        **choices: Any,
    ) -> Wanted:
        """From what `read_data` takes.

        Raises:
            AdapterError: No inputs are described, all are fixed, or one cannot be fixed so.
        """
        if (specs is None) == (lone is None):
            raise AdapterError(
                "data are read for a model: give input_specs, or input_spec where there is one input"
            )
        described = (lone,) if lone is not None else tuple(specs or ())
        fixed = constant_inputs(constants or {}, described)
        free = tuple(spec for spec in described if spec.name not in fixed)
        if not free:
            raise AdapterError(
                f"data {source}: all inputs are fixed, so all samples would be the same; {takes(described)}"
            )
        if not isinstance(preprocess, Preprocess):
            preprocess = Preprocess.preset("none" if preprocess is None else preprocess)
        threads = choices.pop("threads") or min(8, os.cpu_count() or 1)
        return cls(specs=free, preprocess=preprocess, constants=fixed, threads=threads, **choices)

    def choose(self, count: int, labels: np.ndarray | None, name: Any = str) -> np.ndarray:
        """Indices of the samples to use; see `choose_samples`."""
        return choose_samples(count, labels, name, samples=self.samples, seed=self.seed)

    @property
    def chosen_by(self) -> int | None:
        """The seed, where it counts."""
        return None if self.samples is None else self.seed


def image_input(specs: Sequence[InputSpec]) -> InputSpec | None:
    """The one input that takes images, or None where there is none or no telling."""
    images = [
        spec for spec in specs if spec.layout is not None or (len(spec.shape) == 4 and spec.dtype in FLOATING)
    ]
    if len(specs) == 1:
        return specs[0]
    return images[0] if len(images) == 1 else None
