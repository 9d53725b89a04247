"""A quantizer of activations with its parameters, as plans and files hold it: a tag and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.messages import described

Number = float | tuple[float, ...]
_TAG, _BITS = "quantizer", "bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What `core.treatments.rule_of` makes a rule of. Files keep it whole even where a tag is not known.

    Attributes:
        tag: Name of the quantizer.
        bits: Width.
        parameters: Numbers, or rows of numbers, by name.
    """

    tag: str
    bits: int
    parameters: Mapping[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            if not np.isfinite(value).all():
                raise RecordError(f"quantizer {self.tag}: {name} is not finite")

    def number(self, name: str, default: float | None = None) -> float:
        """A parameter that is one number.

        Raises:
            RecordError: There is none of this name, or it is a row.
        """
        value = self.parameters.get(name, default)
        if value is None or isinstance(value, tuple):
            raise RecordError(f"quantizer {self.tag}: {name} should be a number, not {value!r}")
        return float(value)

    def row(self, name: str) -> np.ndarray:
        """A parameter that is a row of numbers, float32.

        Raises:
            RecordError: There is none of this name, or it is one number.
        """
        value = self.parameters.get(name)
        if not isinstance(value, tuple) or not value:
            raise RecordError(f"quantizer {self.tag}: {name} should be a row of numbers, not {value!r}")
        return np.array(value, dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        rows = {name: list(v) if isinstance(v, tuple) else v for name, v in self.parameters.items()}
        return {_TAG: self.tag, _BITS: self.bits, **rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fitted:
        """The inverse of `to_json`.

        Raises:
            RecordError: It is no such object.
        """
        try:
            parameters: dict[str, Number] = {
                str(name): tuple(map(float, value)) if isinstance(value, list) else _number(value)
                for name, value in data.items()
                if name not in (_TAG, _BITS)
            }
            return cls(tag=str(data[_TAG]), bits=int(data[_BITS]), parameters=parameters)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise RecordError(f"malformed quantizer ({described(err)})") from err


def _number(value: Any) -> float:
    """A number as it was written: whole ones stay so, and files the same to the last character."""
    number = float(value)
    return value if type(value) is int else number


def row(numbers: np.ndarray) -> tuple[float, ...]:
    """An array as a parameter: float32 numbers, each in its shortest decimal form."""
    return tuple(float(str(number)) for number in np.asarray(numbers, dtype=np.float32).ravel())
