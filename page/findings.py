"""What a report shows, as plain values: the plan, and where a profile was at hand what surrounds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lampq.core.values.plan import Plan, PlanLayer

_KINDS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next width up or down for one layer, all others as planned.

    Attributes:
        bits: The width it would have.
        damage: Change of the predicted damage, nats; interactions included where the mode knows them.
        bytes: Change of the stored bytes.
    """

    bits: int
    damage: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A plan on the map of size and damage.

    Attributes:
        size_bytes: Bytes of the whole model.
        damage: Predicted damage, nats.
        average_bits: Weight width averaged over all weights.
    """

    size_bytes: int
    damage: float
    average_bits: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surroundings:
    """What a profile adds to a plan of L layers.

    Attributes:
        mode: Score that every prediction here is made with.
        samples: Calibration samples behind it.
        curve: Best plan of every size, cheapest first; no pins, no ties.
        knee: Index of the curve's knee.
        uniform: Width -> the plan that gives it to the weights of every layer, inputs as most layers have them.
        here: The plan itself, predicted with the same ruler as the others.
        narrower: Next width down of each layer, None where there is none; L entries in the plan's order.
        wider: Next width up, likewise.
        pairs: Interactions in nats, shape (L, L), symmetric: a layer's own damage on the diagonal, elsewhere what
            the two layers together add beyond their own. None where the profile kept no logit differences.
        unit: What the predictions count: nats, or without data a stand-in for them.
        caveat: Why the predictions of the profile are not those of the plan, or nothing.
    """

    mode: str
    samples: int
    curve: tuple[Point, ...]
    knee: int
    uniform: dict[int, Point]
    here: Point
    narrower: tuple[Step | None, ...]
    wider: tuple[Step | None, ...]
    pairs: np.ndarray | None
    unit: str = "nats"
    caveat: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """All that a page shows.

    Attributes:
        plan: The plan.
        around: What the profile adds, or None without one.
    """

    plan: Plan
    around: Surroundings | None = None

    @property
    def weights(self) -> int:
        """Number of quantized weights."""
        return sum(layer.size for layer in self.plan.layers)

    @property
    def float_bytes(self) -> int:
        """Bytes of the model with 32-bit weights."""
        return 4 * self.weights + self.plan.rest_bytes

    def kinds(self) -> Iterator[tuple[str, list[tuple[int, PlanLayer]]]]:
        """Kinds in the order they first appear, each with its layers and their positions in the model.

        A plan may come with any number of made-up kinds; those beyond a page's worth are taken together.
        """
        groups: dict[str, list[tuple[int, PlanLayer]]] = {}
        for index, layer in enumerate(self.plan.layers):
            known = layer.kind in groups or len(groups) < _KINDS
            groups.setdefault(layer.kind if known else "other", []).append((index, layer))
        yield from groups.items()
