"""The limits that a plan keeps, as one record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lampq.core.values.amounts import LARGEST, average_bits_limit, parse_at_most, parse_number
from lampq.core.values.cost_table import CostTable
from lampq.core.values.errors import BudgetError
from lampq.core.values.messages import described
from lampq.core.values.patterns import parse_rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a plan may cost. Any combination, at least one limit; all hold together, in exact integers.

    Attributes:
        average_bits: Weight width averaged over all weights of the profile.
        size_bytes: Bytes of the whole model: codes, scales and everything that stays as it is.
        max_kl: Predicted damage in nats. The plan is then the smallest in bytes that keeps it.
        max_bops: Bit operations per sample: the sum of multiply-accumulates x weight bits x input bits, 32 for
            a float input.
        tables: Latencies or energies, each with its own limit.
        at_most: How many layers may have a width: `4@8`, `4@6+` (6 bits or more), `4@3-` (3 bits or less).
        floors: Least widths, `PATTERN=BITS`.
        ceilings: Largest widths, `PATTERN=BITS`.
        max_activation_bytes: Bytes of the largest quantized layer input of one sample
            (`core.allocating.limits.input_elements`).
        average_input_bits: Input width averaged over all values that the layers read of a sample (32 for float).
    """

    average_bits: float | str | None = None
    size_bytes: int | None = None
    max_kl: float | None = None
    max_bops: int | None = None
    tables: tuple[CostTable, ...] = ()
    at_most: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    ceilings: tuple[str, ...] = ()
    max_activation_bytes: int | None = None
    average_input_bits: float | str | None = None

    def __post_init__(self) -> None:
        for name in ("tables", "at_most", "floors", "ceilings"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not any(is_set(getattr(self, field.name)) for field in fields(self)):
            raise BudgetError(
                "no budget: give average bits, a size, a largest KL, BOPs, a latency table or another limit"
            )
        for average in (self.average_bits, self.average_input_bits):
            if average is not None:
                average_bits_limit(average, 1)
        for name, value, unit in (
            ("size", self.size_bytes, "bytes"),
            ("BOPs", self.max_bops, "bit operations"),
            ("largest layer input", self.max_activation_bytes, "bytes"),
        ):
            if value is not None and not 0 < value <= LARGEST:
                raise BudgetError(f"{name} {value}: must be above 0 {unit}, and below 2^63")
        if self.max_kl is not None and not 0 < self.max_kl < math.inf:
            raise BudgetError(f"largest KL {self.max_kl}: must be above 0 nats")
        for text in self.at_most:
            parse_at_most(text)
        for what, rules in (("floor", self.floors), ("ceiling", self.ceilings)):
            for text in rules:
                parse_rule(text, what)

    def to_json(self) -> dict[str, Any]:
        """The limits that are set, as plain values."""
        limits: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "tables":
                value = tuple(table.to_json() for table in value)
            if is_set(value):
                limits[field.name] = list(value) if isinstance(value, tuple) else value
        if self.max_kl is not None:
            limits["max_kl"] = float(self.max_kl)
        for name in ("average_bits", "average_input_bits"):
            if getattr(self, name) is not None:
                limits[name] = float(parse_number(getattr(self, name), "average bits"))
        return limits

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Budget:
        """The inverse of `to_json`; other keys are passed over.

        Raises:
            BudgetError: A limit is malformed, or there is none.
        """
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        try:
            for name in ("at_most", "floors", "ceilings"):
                values[name] = tuple(str(text) for text in values.get(name, ()))
            values["tables"] = tuple(CostTable.from_json(table) for table in values.get("tables", ()))
            for name in ("size_bytes", "max_bops", "max_activation_bytes"):
                if values.get(name) is not None:
                    values[name] = int(values[name])
            return cls(**values)
        except (TypeError, ValueError, OverflowError) as err:
            if isinstance(err, BudgetError):
                raise
            raise BudgetError(f"malformed budget ({described(err)})") from err


def is_set(value: Any) -> bool:
    """Whether a limit limits anything: there is one, and it is no empty list of rules."""
    return value is not None and not (isinstance(value, tuple | list) and not value)
