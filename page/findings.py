"""What a report shows, as plain values: the plan, and where a profile was at hand what surrounds it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lampq.core.values.head import Head
from lampq.core.values.option import Option
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer

_KINDS = 24
# Bars are as high as the widest layer, but no lower than this many bits.
_LEAST_TOP = 4


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
class Sweep:
    """Every plan of the curve with its layers, and the plan of the page among them: P plans, L layers, J options.

    Attributes:
        options: What the entries of `choices` stand for.
        choices: Option of each layer, layers in the plan's order, shape (P, L).
        points: Size and damage of each plan, P entries, smallest first.
        start: Index of the plan of the page.
        payload_bytes: Bytes of codes and scales, shape (L, J).
        damage: Damage of each layer alone in nats, infinite where it cannot have that option, shape (L, J); None
            where the score is not in nats.
        uniform: Width -> the option of every layer of the uniform plan, for the widths of `Surroundings.uniform`.
        command: The command for a plan but for its budget and output, as a shell reads it.
        operations: Bit operations of each plan where these are swept, P entries; None where average bits are.
    """

    options: tuple[Option, ...]
    choices: np.ndarray
    points: tuple[Point, ...]
    start: int
    payload_bytes: np.ndarray
    damage: np.ndarray | None
    uniform: dict[int, int]
    command: str
    operations: tuple[int, ...] | None = None

    def thinned(self, most: int) -> Sweep:
        """About `most` plans, evenly over the curve, the ends and the page's own among them."""
        plans = len(self.points)
        if plans <= most:
            return self
        spread = np.linspace(0, plans - 1, max(2, most)).round().astype(int).tolist()
        rows = sorted({*spread, self.start})
        return dataclasses.replace(
            self,
            choices=self.choices[rows],
            points=tuple(self.points[row] for row in rows),
            start=rows.index(self.start),
            operations=None if self.operations is None else tuple(self.operations[row] for row in rows),
        )


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
        pairs: Interactions in nats, shape (L + P, L + P) with P products behind the layers, symmetric: the damage of
            each alone on the diagonal, elsewhere what two together add beyond their own. None where the profile kept
            no logit differences.
        unit: What the predictions count: nats, or without data a stand-in for them.
        caveat: Why the predictions of the profile are not those of the plan, or nothing.
        sweep: The curve with its plans.
        heads: The outputs that damage is judged by.
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
    sweep: Sweep
    unit: str = "nats"
    caveat: str = ""
    heads: tuple[Head, ...] = ()

    @property
    def front(self) -> tuple[Point, ...]:
        """Plans of the curve that no plan of as many bytes or fewer beats, smallest first.

        Where bit operations are swept, others are among them, which are best by those.
        """
        ordered = sorted(self.curve, key=lambda point: (point.size_bytes, point.damage))
        least = itertools.accumulate((point.damage for point in ordered), min, initial=np.inf)
        return tuple(point for point, before in zip(ordered, least, strict=False) if point.damage < before)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """All that a page shows.

    Attributes:
        plan: The plan.
        around: What the profile adds, or None without one.
        plan_file: Name of the plan's file, for commands.
    """

    plan: Plan
    around: Surroundings | None = None
    plan_file: str = "plan.json"

    @property
    def options(self) -> set[tuple[int, int | None]]:
        """Widths of weights and input that the page can show, in its plan or another of the curve."""
        options = {(layer.weight_bits, layer.activation_bits) for layer in self.plan.layers}
        if self.around is not None:
            options |= {(option.weight_bits, option.activation_bits) for option in self.around.sweep.options}
        return options

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the layers, then of the products."""
        return tuple(place.name for place in self.plan.places)

    @property
    def inputs_vary(self) -> bool:
        """Whether inputs have different widths."""
        return len({inputs for _, inputs in self.options}) > 1

    @property
    def has_ranks(self) -> bool:
        """Whether layers have factors of low rank, in its plan or another of the curve."""
        swept = () if self.around is None else self.around.sweep.options
        return any(option.rank for option in (*swept, *(layer.option for layer in self.plan.layers)))

    @property
    def top(self) -> int:
        """Bits at the upper end of all bars."""
        return max(_LEAST_TOP, *(max(weights, inputs or 0) for weights, inputs in self.options))

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
