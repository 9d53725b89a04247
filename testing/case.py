"""A model to try the laws on, and what broke one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import input_batch
from lampq.core.values.batch import Batch, BatchLike
from lampq.core.values.errors import LampqError, RecordError
from lampq.core.values.messages import listed

# A law looks at so many samples at least: one, the others, and a rest in batches of fixed size.
_FEWEST = 3


class LawError(AssertionError):
    """A model that does not keep to a law; the message says which, and what it does instead, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A model of a format, and what the laws need to know of it.

    Attributes:
        read: Reads the model, anew each time. At least one of its layers lies behind another.
        batch: Inputs for it, three samples or more, in one group or several.
        other: Reads a model that holds other weights.
        empty: Reads a model of the same inputs that has no layers.
        suffix: Ending of the files that it writes.
        reopen: Reads such a file; None where the format's own files cannot be read back, which leaves out the laws
            of what they compute.
        gradients: Whether Fisher traces come from gradients.
        tolerance: Largest difference that the order of sums makes to an output, relative to its largest number.
        written_tolerance: The same between a written file and the model with rounded weights: more where the file
            rounds activations as well.
    """

    read: Callable[[], Model]
    batch: BatchLike
    other: Callable[[], Model]
    empty: Callable[[], Model]
    suffix: str
    reopen: Callable[[Path], Model] | None = None
    gradients: bool = False
    tolerance: float = 1e-4
    written_tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if Batch.of(self.batch).samples < _FEWEST:
            raise RecordError(f"laws are tried on {_FEWEST} samples or more")

    def inputs(self, model: Model) -> Batch:
        """The batch by the names of the model's inputs."""
        return input_batch(model, self.batch)


def require(condition: bool, message: str) -> None:
    """Say what is wrong, if it is.

    Raises:
        LawError: The condition does not hold.
    """
    if not condition:
        raise LawError(message)


def require_equal(outputs: Batch, expected: Batch, tolerance: float, what: str) -> None:
    """Outputs must be those that are expected.

    Raises:
        LawError: They have other names, groups, shapes or numbers.
    """
    require(outputs.names == expected.names, f"{what}: outputs {outputs.names}, not {expected.names}")
    require(
        outputs.sizes == expected.sizes, f"{what}: groups of {outputs.sizes} samples, not {expected.sizes}"
    )
    for mine, theirs in zip(outputs.groups, expected.groups, strict=True):
        for name in expected.names:
            one, other = mine[name], theirs[name]
            require(one.shape == other.shape, f"{what}: {name} has shape {one.shape}, not {other.shape}")
            error = difference(one, other)
            require(error <= tolerance, f"{what}: {name} is off by {error:.2g} of its largest number")


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two arrays of one shape, relative to the largest finite number; NaN equals NaN."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    scale = float(np.abs(other).max(where=np.isfinite(other), initial=0.0))
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.abs(one.astype(np.float64) - other))
    return float(np.nan_to_num(distance, nan=np.inf).max(initial=0.0)) / max(scale, 1e-12)


def require_refused(action: Callable[[], object], what: str, *mentioned: str) -> None:
    """Something must be refused in one line, by an error that a user can act on.

    Args:
        action: What is to be refused.
        what: What to call it.
        mentioned: Texts that the message holds.

    Raises:
        LawError: It is accepted, or the message has several lines, or does not say what it should.
    """
    try:
        action()
    except LampqError as err:
        message = str(err)
        require(bool(message) and "\n" not in message, f"{what} is refused in several lines: {message!r}")
        missing = [text for text in mentioned if text not in message]
        require(not missing, f"{what} is refused without naming {listed(missing)}: {message}")
        return
    except Exception as err:
        raise LawError(f"{what} fails with {type(err).__name__} ({err}), not an AdapterError") from err
    raise LawError(f"{what} is accepted")
