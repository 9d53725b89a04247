"""What a plan says of a product of two activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lampq.core.values.errors import PlanError, RecordError
from lampq.core.values.fitted import Fitted
from lampq.core.values.product import Product


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanProduct:
    """The decision for one product.

    Attributes:
        product: The product, by the names of the model the plan was made from.
        left: How its left factor is rounded, or None: it stays float.
        right: How its right factor is rounded, or None.
        predicted_kl: Damage predicted for this product alone, nats; None without data.
        why: One sentence.
    """

    product: Product
    left: Fitted | None = None
    right: Fitted | None = None
    predicted_kl: float | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """Name of the product."""
        return self.product.name

    @property
    def kind(self) -> str:
        """What patterns may call it."""
        return self.product.kind

    @property
    def widths(self) -> tuple[int | None, int | None]:
        """Of the left and the right factor; None where it stays float."""
        return (self.left.bits if self.left else None, self.right.bits if self.right else None)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            **self.product.to_json(),
            "left_quantizer": None if self.left is None else self.left.to_json(),
            "right_quantizer": None if self.right is None else self.right.to_json(),
            "predicted_kl": self.predicted_kl,
            "why": self.why,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlanProduct:
        """The inverse of `to_json`.

        Raises:
            PlanError: A field is missing or impossible.
        """
        try:
            left, right = (
                None if data.get(name) is None else Fitted.from_json(data[name])
                for name in ("left_quantizer", "right_quantizer")
            )
            kl = data.get("predicted_kl")
            return cls(
                product=Product.from_json(data),
                left=left,
                right=right,
                predicted_kl=None if kl is None else float(kl),
                why=str(data.get("why", "")),
            )
        except (RecordError, TypeError, ValueError) as err:
            raise PlanError(f"product {data.get('name')}: {err}") from err
