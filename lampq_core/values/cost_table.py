"""Latencies or energies brought by the user: what each layer takes at each width (`cost_csv` reads them)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from lampq.core.values.errors import BudgetError, PlanError
from lampq.core.values.layer import KINDS, Layer
from lampq.core.values.messages import described
from lampq.core.values.option import Option
from lampq.core.values.patterns import select
from lampq.core.values.product import Product

# Sums up to this many units are exact in integers and easy on every solver.
_MOST_UNITS = 10**15
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One line of a table.

    Attributes:
        layer: Name, pattern or kind of the layers it is for; empty where kind and shape say it.
        kind: Kind of the layers, or empty.
        shape: Shape of their weights, or empty.
        weight_bits: Width of the weights.
        input_bits: Width of the input, 32 for float, None for any.
        value: In the unit of the table, >= 0.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    weight_bits: int
    input_bits: int | None
    value: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """What each layer takes at each width, and the most that all together may take.

    Where several rows fit a layer, the most particular one counts: a name before a pattern, a pattern before a
    shape, a shape before a kind; and a row for one input width before one for any.

    Attributes:
        name: What is counted: `latency` or `energy`.
        unit: Of the values and the limit.
        limit: The most that the sum over all layers may be.
        rows: The lines of the table.
        source: Name of the file.
    """

    name: str
    unit: str
    limit: Fraction
    rows: tuple[CostRow, ...]
    source: str = ""

    def values(
        self, layers: Sequence[Layer | Product], options: Sequence[Option], allowed: np.ndarray
    ) -> list[list[Fraction]]:
        """The value of every allowed option, L lists of J; 0 where an option is not allowed.

        Args:
            layers: L records.
            options: J options.
            allowed: Which of them the plan may take, bool, shape (L, J).

        Raises:
            BudgetError: The table lacks an allowed option of a layer, or two equally particular rows disagree;
                names layers and widths.
        """
        matched = self._matched(layers)
        table, missing = [], []
        for index, layer in enumerate(layers):
            cells = [
                self._cell(matched[index], option, layer) if allowed[index, column] else Fraction(0)
                for column, option in enumerate(options)
            ]
            lacking = [option.to_text() for option, cell in zip(options, cells, strict=True) if cell is None]
            if lacking:
                missing.append(f"{layer.name} at {', '.join(lacking)}")
            table.append([cell or Fraction(0) for cell in cells])
        if missing:
            more = f" and {len(missing) - _SHOWN} more layers" if len(missing) > _SHOWN else ""
            raise BudgetError(
                f"{self.name} table {self.source} has no value for {'; '.join(missing[:_SHOWN])}{more}; "
                f"add rows, or leave these widths out with --min, --max or --pin"
            )
        return table

    def integers(
        self, layers: Sequence[Layer | Product], options: Sequence[Option], allowed: np.ndarray
    ) -> tuple[np.ndarray, Fraction]:
        """The values as whole multiples of a resolution, so that sums are exact.

        Where the decimals are too many for 64-bit sums, values are rounded up to the resolution: a plan that
        keeps the limit in integers then keeps it in the table's values too.

        Returns:
            Int64, shape (L, J), and the resolution in the table's unit.

        Raises:
            BudgetError: See `values`.
        """
        table = self.values(layers, options, allowed)
        resolution = Fraction(1, math.lcm(*(cell.denominator for cells in table for cell in cells)))
        most = sum(max(cells) for cells in table)
        if most / resolution > _MOST_UNITS:
            resolution = Fraction(1)
            while most / resolution > _MOST_UNITS // 1000:
                resolution *= 10
            while most / resolution <= _MOST_UNITS // 10000:
                resolution /= 10
        use = [[math.ceil(cell / resolution) for cell in cells] for cells in table]
        return np.array(use, dtype=np.int64).reshape(len(layers), len(options)), resolution

    def is_exact(self, resolution: Fraction) -> bool:
        """Whether every value is a whole multiple of the resolution."""
        return all((row.value / resolution).denominator == 1 for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; numbers are texts, so that they stay exact."""
        return {
            "name": self.name,
            "unit": self.unit,
            "limit": decimal(self.limit),
            "source": self.source,
            "rows": [
                [row.layer, row.kind, list(row.shape), row.weight_bits, row.input_bits, decimal(row.value)]
                for row in self.rows
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CostTable:
        """The inverse of `to_json`.

        Raises:
            BudgetError: A field is missing or impossible.
        """
        try:
            rows = []
            for layer, kind, shape, weight_bits, input_bits, value in data["rows"]:
                rows.append(
                    CostRow(
                        layer=str(layer),
                        kind=str(kind),
                        shape=tuple(int(side) for side in shape),
                        weight_bits=int(weight_bits),
                        input_bits=None if input_bits is None else int(input_bits),
                        value=_fraction(value),
                    )
                )
            return cls(
                name=str(data["name"]),
                unit=str(data["unit"]),
                limit=_fraction(data["limit"]),
                rows=tuple(rows),
                source=str(data.get("source", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise BudgetError(f"malformed cost table ({described(err)})") from err

    def _matched(self, layers: Sequence[Layer | Product]) -> list[list[tuple[int, CostRow]]]:
        """For each layer the rows that are for it, with how particular each is."""
        position = {layer.name: index for index, layer in enumerate(layers)}
        matched: list[list[tuple[int, CostRow]]] = [[] for _ in layers]
        picked: dict[str, list[int]] = {}
        for row in self.rows:
            if row.layer in position:
                matched[position[row.layer]].append((3, row))
                continue
            if row.layer and row.layer not in picked:
                try:
                    picked[row.layer] = select(layers, row.layer)
                except PlanError:
                    # A table may hold layers of other models.
                    picked[row.layer] = []
            for index in picked[row.layer] if row.layer else range(len(layers)):
                layer = layers[index]
                shape = layer.shape if isinstance(layer, Layer) else ()
                if row.kind in ("", layer.kind) and row.shape in ((), shape):
                    kind_only = row.layer in KINDS or not row.layer
                    matched[index].append((0 if kind_only and not row.shape else 1 if kind_only else 2, row))
        return matched

    def _cell(
        self, rows: list[tuple[int, CostRow]], option: Option, layer: Layer | Product
    ) -> Fraction | None:
        fitting = [
            (rank, row.input_bits is not None, row.value)
            for rank, row in rows
            if row.weight_bits == option.weight_bits and row.input_bits in (None, option.input_bits)
        ]
        if not fitting:
            return None
        best = max(fitting)[:2]
        values = {value for *rank, value in fitting if tuple(rank) == best}
        if len(values) > 1:
            raise BudgetError(
                f"{self.name} table {self.source}: rows disagree about {layer.name} at {option.to_text()} "
                f"({' and '.join(decimal(value) for value in sorted(values))} {self.unit})"
            )
        return values.pop()


def decimal(value: Fraction) -> str:
    """An exact decimal text of a fraction whose denominator divides a power of ten, else the fraction.

    >>> decimal(Fraction(5, 4)), decimal(Fraction(3)), decimal(Fraction(1, 3))
    ('1.25', '3', '1/3')
    """
    digits = 0
    rest = value.denominator
    while rest % 10 == 0:
        rest, digits = rest // 10, digits + 1
    while rest % 2 == 0 or rest % 5 == 0:
        rest, digits = rest // (2 if rest % 2 == 0 else 5), digits + 1
    if rest != 1:
        return str(value)
    whole = value * 10**digits
    text = str(whole.numerator).rjust(digits + 1, "0")
    return f"{text[:-digits]}.{text[-digits:]}".rstrip("0").rstrip(".") if digits else text


def _fraction(value: Any) -> Fraction:
    text = str(value)
    if not re.fullmatch(r"\d{1,60}(?:\.\d{1,60}|/\d{1,60})?", text):
        raise ValueError(f"{text[:40]!r} is no number")
    return Fraction(text)
