"""What a model of any kind is tried with: a file, samples to search on and to judge by, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Arrays = Mapping[str, np.ndarray]
"""Arrays by name, samples first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What an output is, said by hand: the judge does not ask lampq.

    Attributes:
        role: `classes`, `probabilities`, `values` or `direction`.
        axis: Axis of the classes, labels, channels or coordinates.
        activated: It is behind a softmax or sigmoid already.
        mask: Input that says which positions count, or None.
    """

    role: str
    axis: int = -1
    activated: bool = False
    mask: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A model and its data.

    Attributes:
        name: What to call it.
        task: What it does, a few words.
        path: File or Hugging Face folder.
        calibration: Inputs to search on.
        validation: Inputs to judge by, none of them among those.
        outputs: Name -> meaning, of all outputs that matter.
        batch: Samples per run of the stock runtime.
        widths: Widths to choose from.
        twin: Another export of the same model, or None.
        flags: What a user would add to the command line.
    """

    name: str
    task: str
    path: Path
    calibration: Arrays
    validation: Arrays
    outputs: Mapping[str, Meaning]
    batch: int = 1
    widths: tuple[int, ...] = (3, 4, 6, 8)
    twin: Path | None = None
    flags: tuple[str, ...] = field(default=())


JUDGED = 2
"""Samples to judge by, for each to search on."""


def parts(arrays: Arrays, calibration: int) -> tuple[Arrays, Arrays]:
    """The first samples to search on, the others to judge by."""
    return (
        {name: array[:calibration] for name, array in arrays.items()},
        {name: array[calibration:] for name, array in arrays.items()},
    )
