"""What a profile holds beside its records: arrays by name, each with its axes and how parts of the data merge.

The tables that lampq measures are listed in `KINDS`; others, such as those of a score from a plug-in, bring their kind
along and are narrowed, merged, written and read by the same few loops.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.messages import described

LAYERS, OPTIONS, SAMPLES = "layers", "options", "samples"
"""Axes whose length a profile knows; an axis of any other name is as long as it is."""
SAME, MEAN, JOIN = "same", "mean", "join"
"""How parts of the data merge: equal in all of them; the average over samples; one after the other in sample order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableKind:
    """What the numbers of a table are.

    Attributes:
        axes: Names of its axes; `layers` and `options` may stand twice.
        merge: `same`, `mean` or `join`.
        unit: What a number counts.
        dtype: NumPy name of the element type.
        least: Smallest value that can be, or None.
    """

    axes: tuple[str, ...]
    merge: str
    unit: str
    dtype: str = "float64"
    least: float | None = None

    def __post_init__(self) -> None:
        if self.merge not in (SAME, MEAN, JOIN) or (self.merge == JOIN) != (SAMPLES in self.axes):
            raise RecordError(f"tables merge by {SAME} or {MEAN}, or with an axis of samples by {JOIN}")
        if np.dtype(self.dtype).kind not in "fi":
            raise RecordError(f"tables hold numbers, not {self.dtype}")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        least = {} if self.least is None else {"least": self.least}
        return {"axes": list(self.axes), "merge": self.merge, "unit": self.unit, "dtype": self.dtype, **least}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableKind:
        """The inverse of `to_json`.

        Raises:
            RecordError: It is no such description.
        """
        try:
            axes = tuple(str(axis) for axis in data["axes"])
            return cls(
                axes=axes,
                merge=str(data["merge"]),
                unit=str(data["unit"]),
                dtype=str(data["dtype"]),
                least=None if data.get("least") is None else float(data["least"]),
            )
        except (KeyError, TypeError, ValueError) as err:
            raise RecordError(f"malformed description of a table ({described(err)})") from err


# Names under which NumPy takes something else than an array.
_TAKEN = ("file", "allow_pickle")


def check_name(name: str, kind: TableKind) -> None:
    """Refuse a table that cannot be told from those that lampq measures, or cannot be stored.

    Raises:
        RecordError: It is so.
    """
    if KINDS.get(name, kind) != kind:
        raise RecordError(f"table {name!r} is measured by lampq and is of another kind; choose another name")
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in _TAKEN:
        raise RecordError(
            f"table {name!r}: a name begins with a letter, has letters, digits and underscores, and is none of "
            f"{', '.join(_TAKEN)}"
        )


# What "equal" means for numbers from different machines.
_ROUNDING = 1e-4

_CELLS = (LAYERS, OPTIONS)
KINDS: Mapping[str, TableKind] = {
    "weight_error": TableKind(axes=_CELLS, merge=SAME, unit="squared weight", least=0),
    "payload_bytes": TableKind(axes=_CELLS, merge=SAME, unit="bytes", dtype="int64", least=-1),
    "overhead_bytes": TableKind(axes=_CELLS, merge=SAME, unit="bytes", dtype="int64", least=0),
    "shared_bytes": TableKind(axes=("parts",), merge=SAME, unit="bytes", dtype="int64", least=0),
    "shares": TableKind(axes=(*_CELLS, "parts"), merge=SAME, unit="uses", dtype="int8", least=0),
    "kl": TableKind(axes=_CELLS, merge=MEAN, unit="nats", least=0),
    "changed": TableKind(axes=_CELLS, merge=MEAN, unit="share of decisions", least=0),
    "joint_fisher": TableKind(axes=_CELLS, merge=MEAN, unit="nats", least=0),
    "activation_range": TableKind(axes=(*_CELLS, "ends"), merge=SAME, unit="activation"),
    "gram": TableKind(axes=(*_CELLS, *_CELLS), merge=MEAN, unit="nats"),
    "gram_square": TableKind(axes=(*_CELLS, *_CELLS), merge=MEAN, unit="squared nats", least=0),
    "signature": TableKind(axes=(SAMPLES, "rows"), merge=JOIN, unit="output", dtype="float32"),
    # Profiles of version 1 hold the differences themselves.
    "logits": TableKind(axes=(SAMPLES, "classes"), merge=JOIN, unit="logit", dtype="float32"),
    "logit_delta": TableKind(axes=(*_CELLS, SAMPLES, "classes"), merge=JOIN, unit="logit", dtype="float32"),
}
"""The tables lampq measures; `core.values.profile.Profile` says what each holds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Numbers with axes.

    Attributes:
        array: The numbers.
        kind: What they are.
    """

    array: np.ndarray
    kind: TableKind

    def take(self, axis: str, places: Sequence[int]) -> Table:
        """Some places of an axis, wherever it stands."""
        array = self.array
        for number, name in enumerate(self.kind.axes):
            if name == axis:
                array = np.take(array, places, axis=number)
        return Table(array=array, kind=self.kind)

    def checked(self, name: str, lengths: Mapping[str, int], layers: Sequence[str]) -> Table:
        """The table in its element type.

        Args:
            name: What it is called.
            lengths: Lengths of the axes that the profile knows.
            layers: Names of the layers, for messages.

        Raises:
            RecordError: Its shape does not fit, or a number is not finite or too small; names the place.
        """
        kind = self.kind
        array = np.asarray(self.array)
        if array.ndim != len(kind.axes):
            raise RecordError(f"profile: {name} has shape {array.shape}; its axes are {', '.join(kind.axes)}")
        expected = tuple(lengths.get(axis, n) for axis, n in zip(kind.axes, array.shape, strict=True))
        if array.shape != expected:
            raise RecordError(f"profile: {name} has shape {array.shape}, expected {expected}")
        array = array.astype(kind.dtype, copy=False)
        wrong, what = ~np.isfinite(array), "not finite"
        if not wrong.any() and kind.least is not None:
            wrong, what = array < kind.least, "negative"
        if wrong.any():
            where = int(np.argwhere(wrong)[0, 0])
            place = f"layer {layers[where]}" if kind.axes[0] == LAYERS else f"{kind.axes[0]} {where}"
            raise RecordError(f"profile: {name} is {what} at {place}")
        return Table(array=array, kind=kind)


def known_tables(**arrays: np.ndarray | None) -> dict[str, Table]:
    """Tables of the kinds that lampq measures, by name; those that are None are left out.

    Raises:
        RecordError: There is no such kind.
    """
    for name in arrays:
        if name not in KINDS:
            raise RecordError(f"no table is called {name!r}; there are {', '.join(KINDS)}")
    return {
        name: Table(array=np.asarray(array), kind=KINDS[name])
        for name, array in arrays.items()
        if array is not None
    }


def _agree(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=_ROUNDING)


def merge_tables(name: str, parts: Sequence[Table], share: np.ndarray, order: np.ndarray | slice) -> Table:
    """One table of parts of the data.

    Args:
        name: What it is called.
        parts: The table of each part.
        share: Share of all samples that each part has, shape (P,).
        order: Places of the joined samples in the order of the data set.

    Raises:
        RecordError: The parts differ where they must not.
    """
    first = parts[0]
    if any(part.kind != first.kind for part in parts[1:]):
        raise RecordError(f"profiles to merge hold different things as {name}")
    if first.kind.merge == SAME:
        if not all(_agree(part.array, first.array) for part in parts[1:]):
            raise RecordError(f"profiles to merge differ in {name}; profile shards of the same data instead")
        return first
    if first.kind.merge == MEAN:
        total = sum(weight * part.array for weight, part in zip(share, parts, strict=True))
        return Table(array=np.asarray(total), kind=first.kind)
    axis = first.kind.axes.index(SAMPLES)
    whole = np.concatenate([part.array for part in parts], axis=axis)
    return Table(array=whole[(*(slice(None),) * axis, order)], kind=first.kind)
