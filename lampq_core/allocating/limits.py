"""What a plan may cost: every kind of limit, as exact integers on the options of a profile."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from lampq.core.values.amounts import LARGEST, AtMost, average_bits_limit, parse_at_most
from lampq.core.values.budget import Budget
from lampq.core.values.cost_table import CostTable, decimal
from lampq.core.values.errors import BudgetError
from lampq.core.values.messages import listed
from lampq.core.values.profile import Profile

BITS, INPUT_BITS, BYTES, BOPS = "bits", "input bits", "bytes", "BOPs"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limit:
    """One sum over the layers and the most it may be.

    Attributes:
        name: Short name, unique among the limits of a problem.
        use: What each option of each layer takes, int64, shape (L, J), >= 0; 0 where it is not allowed.
        most: The most that all layers together may take.
        asked: The limit as the user put it.
        show: From an amount to a text in the user's units that, given as the limit, allows that amount.
        note: How the numbers were rounded, if they were.
    """

    name: str
    use: np.ndarray
    most: int
    asked: str
    show: Callable[[int], str]
    note: str = ""

    def __post_init__(self) -> None:
        # A huge average limits nothing; solvers take 64-bit integers.
        object.__setattr__(self, "most", min(self.most, LARGEST))


def limits_of(profile: Profile, budget: Budget | None, allowed: np.ndarray) -> list[Limit]:
    """The sums that a budget limits, in the order of its fields.

    Floors, ceilings and the largest layer input limit single layers, not sums: see `core.allocating.allowed`.

    Args:
        profile: L layers, J options.
        budget: Limits, or None.
        allowed: Options that the plan may take, bool, shape (L, J).

    Raises:
        BudgetError: A table lacks a layer or width, or layers lack multiply-accumulates; names them.
    """
    limits: list[Limit] = []
    if budget is None:
        return limits
    weights = int(profile.sizes.sum())
    if budget.average_bits is not None:
        limits.append(
            Limit(
                name=BITS,
                use=profile.code_bits,
                most=average_bits_limit(budget.average_bits, weights),
                asked=f"average bits {budget.average_bits}",
                show=lambda amount: f"{_rounded_up(Fraction(amount, weights), 4)} average bits",
            )
        )
    if budget.average_input_bits is not None:
        values = input_values(profile)
        limits.append(
            Limit(
                name=INPUT_BITS,
                use=input_use(profile),
                most=average_bits_limit(budget.average_input_bits, values),
                asked=f"average input bits {budget.average_input_bits}",
                show=lambda amount: f"{_rounded_up(Fraction(amount, values), 4)} average input bits",
            )
        )
    if budget.size_bytes is not None:
        rest = profile.rest_bytes + profile.shared_bytes(allowed)
        limits.append(
            Limit(
                name=BYTES,
                use=profile.stored_bytes,
                most=budget.size_bytes - rest,
                asked=f"size {budget.size_bytes:,} bytes",
                show=lambda amount: f"{amount + rest:,} bytes",
            )
        )
    if budget.max_bops is not None:
        limits.append(
            Limit(
                name=BOPS,
                use=bit_operations(profile),
                most=budget.max_bops,
                asked=f"{budget.max_bops:,} BOPs",
                show=lambda amount: f"{amount:,} BOPs",
            )
        )
    limits += [_table_limit(profile, table, allowed) for table in budget.tables]
    limits += [_count_limit(profile, parse_at_most(text)) for text in budget.at_most]
    return [replace(limit, use=np.where(allowed, limit.use, 0)) for limit in limits]


def bit_operations(profile: Profile) -> np.ndarray:
    """Multiply-accumulates x weight bits x input bits per sample, int64, shape (L, J).

    A float input counts 32 bits. Factors of low rank multiply as often for a weight of theirs as the layer does for one
    of its own; what is between them counts as the layer's input.

    Raises:
        BudgetError: Layers without multiply-accumulates; names them.
    """
    lacking = [place.name for place in profile.places if place.macs is None]
    if lacking:
        raise BudgetError(
            f"BOPs need the multiply-accumulates of every layer; {listed(lacking, most=3)} "
            f"{'has' if len(lacking) == 1 else 'have'} none: profile the model with --data"
        )
    macs = np.array([place.macs for place in profile.places], dtype=np.int64)
    inputs = np.array([option.input_bits for option in profile.options], dtype=np.int64)
    sizes, widths = profile.sizes, profile.weight_bits
    factors = profile.code_bits - sizes[:, None] * widths
    uses = macs // np.maximum(sizes, 1)
    return (macs[:, None] * widths + uses[:, None] * factors) * inputs


def input_elements(profile: Profile) -> np.ndarray:
    """Input values of each layer per sample, int64, shape (L,).

    Counted while the inputs were measured: all values that the layer read, over the samples. A weight that the
    model uses several times reads several inputs; they are counted together, as if they were alive at once. What
    else is alive beside the input (residual branches, the output) is not counted: that depends on the runtime.

    Raises:
        BudgetError: The inputs of a layer were not measured, or not for whole samples; names it.
    """
    lacking = [layer.name for layer in profile.layers if layer.activation is None]
    if lacking or not profile.samples:
        raise BudgetError(
            f"a limit on layer inputs needs their measured size; profile the model with --data"
            f"{f' (nothing known of {listed(lacking, most=3)})' if lacking else ''}"
        )
    values = [0 if layer.activation is None else layer.activation.count for layer in profile.layers]
    counts, rest = np.divmod(np.array(values, dtype=np.int64), profile.samples)
    if rest.any():
        uneven = profile.layers[int(np.argmax(rest > 0))].name
        raise BudgetError(
            f"layer {uneven}: its input values over all samples do not divide by {profile.samples:,} samples; its "
            f"inputs vary in size, so no limit on them can be kept"
        )
    return counts


def input_use(profile: Profile) -> np.ndarray:
    """Bits of all values that a place reads of a sample: a layer's input, both factors of a product; int64, (L, J)."""
    left, right = (
        np.array([getattr(product, f"{side}_values") for product in profile.products], dtype=np.int64)
        for side in ("left", "right")
    )
    first = np.concatenate([np.zeros(len(profile.layers), dtype=np.int64), left])
    second = np.concatenate([input_elements(profile), right])
    widths = np.array([option.input_bits for option in profile.options], dtype=np.int64)
    return first[:, None] * profile.weight_bits[None, :] + second[:, None] * widths[None, :]


def input_values(profile: Profile) -> int:
    """Values that layers and products read of a sample."""
    factors = sum(product.left_values + product.right_values for product in profile.products)
    return int(input_elements(profile).sum()) + factors


def budget_summary(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan was asked for, short enough to read: tables by their limit and name. Takes any plain values."""
    summary: dict[str, Any] = {}
    for name, value in asked.items():
        if name == "tables" and isinstance(value, list):
            for table in value:
                entry = table if isinstance(table, dict) else {}
                summary[str(entry.get("name", "table"))] = (
                    f"{entry.get('limit', '?')} {entry.get('unit', '')} by {entry.get('source') or 'a table'}"
                )
        elif isinstance(value, list):
            summary[name] = ", ".join(map(str, value))
        else:
            summary[name] = value
    return summary


def _table_limit(profile: Profile, table: CostTable, allowed: np.ndarray) -> Limit:
    use, resolution = table.integers(profile.places, profile.options, allowed)
    note = ""
    if not table.is_exact(resolution):
        note = f"{table.name} of {table.source} is rounded up to {decimal(resolution)} {table.unit} per layer"
    return Limit(
        name=table.name,
        use=use,
        most=math.floor(table.limit / resolution),
        asked=f"{table.name} {decimal(table.limit)} {table.unit}",
        show=lambda amount: f"{decimal(amount * resolution)} {table.unit} of {table.name}",
        note=note,
    )


def _count_limit(profile: Profile, limit: AtMost) -> Limit:
    test = {"=": limit.width.is_of, "+": limit.width.is_floor_of, "-": limit.width.is_ceiling_of}
    counted = [test[limit.direction](option) for option in profile.options]
    width = limit.to_text().partition(" at ")[2]
    return Limit(
        name=f"layers at {width}",
        use=np.tile(np.array(counted, dtype=np.int64), (len(profile.places), 1)),
        most=limit.layers,
        asked=f"at most {limit.to_text()}",
        show=lambda amount: f"{amount} layers at {width}",
    )


def _rounded_up(value: Fraction, digits: int) -> str:
    return f"{math.ceil(value * 10**digits) / 10**digits:.{digits}f}"
