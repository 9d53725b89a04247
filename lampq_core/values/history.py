"""What a search with the model at hand tried: rounds of measuring around a plan, and swaps of the published update."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from lampq.core.values.errors import PlanError
from lampq.core.values.messages import described


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of `core.searching.recentre`.

    Attributes:
        number: 0 for the plans given, then 1, 2, ...
        before: Measured damage of the plan at the start, nats; None in round 0.
        predicted: Predicted damage of the best plan measured, nats; None in round 0.
        measured: Least measured damage of the plans tried, nats.
        moved: Layers in which that plan differs from the one before.
        tried: Plans measured.
        accepted: Whether it became the plan.
        seconds: Wall time.
    """

    kind: ClassVar[str] = "round"

    number: int
    measured: float
    before: float | None = None
    predicted: float | None = None
    moved: int = 0
    tried: int = 0
    accepted: bool = False
    seconds: float = 0.0

    def __post_init__(self) -> None:
        _check(self, ("number", "measured", "moved", "tried", "seconds"), ("before", "predicted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One swap that `core.searching.lampq_update` tried.

    Attributes:
        raised: Layer that went up, by index.
        lowered: Layer that went down.
        gain: Error that raising was expected to save.
        degradation: Error that lowering was expected to cost.
        kl: Measured damage after the swap, nats.
        kept: Whether the model had improved.
    """

    kind: ClassVar[str] = "swap"

    raised: int
    lowered: int
    kl: float
    gain: float | None = None
    degradation: float | None = None
    kept: bool = False

    def __post_init__(self) -> None:
        _check(self, ("raised", "lowered", "kl"), ("gain", "degradation"))


Step: TypeAlias = Round | Swap
_KINDS: dict[str, type[Round] | type[Swap]] = {kind.kind: kind for kind in (Round, Swap)}


def step_to_json(step: Step) -> dict[str, Any]:
    """Plain values for a JSON file, tagged with the kind of the step."""
    return {"kind": step.kind, **dataclasses.asdict(step)}


def history_from_json(entries: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """The steps of a plan file, in order.

    Files of before the tag are read too: a swap says what it raised, a round its number. Entries of other kinds, and
    old ones without a measured damage, are passed over: nothing but a report reads them.

    Raises:
        PlanError: A tagged entry is malformed.
    """
    steps = (_step(entry) for entry in entries)
    return tuple(step for step in steps if step is not None)


def _step(entry: Mapping[str, Any]) -> Step | None:
    tag = entry.get("kind", Swap.kind if "raised" in entry else Round.kind)
    record = _KINDS.get(tag) if isinstance(tag, str) else None
    if record is None:
        return None
    names = {field.name for field in dataclasses.fields(record)}
    try:
        return record(**{name: value for name, value in entry.items() if name in names})
    except (TypeError, PlanError) as err:
        if "kind" not in entry:
            return None
        raise PlanError(f"history: malformed {tag} ({described(err)})") from err


def _check(step: Step, amounts: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Amounts are finite and not negative; what is optional may be missing, and a prediction below 0."""
    for name in (*amounts, *optional):
        value = getattr(step, name)
        if value is None and name in optional:
            continue
        numeric = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not numeric or (name in amounts and value < 0):
            raise PlanError(f"{step.kind}: {name} is {value!r}")
