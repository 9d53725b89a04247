"""A product of two activations: a place without a weight, whose two factors can be rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lampq.core.values.errors import RecordError
from lampq.core.values.layer import LARGEST_COUNT
from lampq.core.values.messages import described


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A matrix product of two activations, such as queries with keys.

    An option of it is a width of the left factor, which stands where layers have that of their weights, and one of the
    right factor, which stands where layers have that of their input.

    Attributes:
        name: Its address: `MODULE@scores` (queries with keys), `MODULE@context` (probabilities with values), or
            `MODULE@product`, with `#2`, `#3`, ... where they recur.
        left: Name of the site of the left factor, such as `MODULE@queries`.
        right: Name of that of the right factor.
        left_values: Numbers in the left factor, per sample.
        right_values: Numbers in the right factor, per sample.
        macs: Multiply-accumulates per sample.
    """

    name: str
    left: str
    right: str
    left_values: int
    right_values: int
    macs: int

    def __post_init__(self) -> None:
        if not (self.name and self.left and self.right):
            raise RecordError("a product needs a name, and so do its factors")
        for count in (self.left_values, self.right_values, self.macs):
            if not 0 < count <= LARGEST_COUNT:
                raise RecordError(f"product {self.name}: {count} values or multiplications cannot be")

    @property
    def kind(self) -> str:
        """What patterns may call it."""
        return KIND

    @property
    def size(self) -> int:
        """Weights: none."""
        return 0

    @property
    def sites(self) -> tuple[str, str]:
        """Names of the sites of both factors."""
        return self.left, self.right

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Product:
        """The inverse of `to_json`.

        Raises:
            RecordError: A field is missing or impossible.
        """
        try:
            return cls(
                name=str(data["name"]),
                left=str(data["left"]),
                right=str(data["right"]),
                left_values=int(data["left_values"]),
                right_values=int(data["right_values"]),
                macs=int(data["macs"]),
            )
        except (KeyError, TypeError, ValueError) as err:
            raise RecordError(f"malformed product ({described(err)})") from err


KIND = "product"
"""The kind of all products."""
_FIELDS = ("name", "left", "right", "left_values", "right_values", "macs")
