"""From a profile and budgets to a solver's problem, and from its answer back to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.budget import average_bits_limit
from lampq.core.errors import BudgetError, PlanError
from lampq.core.patterns import parse_pin, select, tie_groups
from lampq.core.plan import Plan, PlanLayer
from lampq.core.problem import Problem
from lampq.core.profile import Profile

BITS, BYTES = "bits", "bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a plan may cost. At least one limit is set.

    Attributes:
        average_bits: Weight width averaged over all weights of the profile.
        size_bytes: Bytes of the whole model: codes, scales and everything that stays as it is.
    """

    average_bits: float | None = None
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.average_bits is None and self.size_bytes is None:
            raise BudgetError("no budget: give average bits or a size")
        if self.size_bytes is not None and self.size_bytes <= 0:
            raise BudgetError(f"size {self.size_bytes}: must be above 0 bytes")

    def to_json(self) -> dict[str, float]:
        """The limits that are set."""
        fields = {"average_bits": self.average_bits, "size_bytes": self.size_bytes}
        return {name: value for name, value in fields.items() if value is not None}


def bit_costs(profile: Profile) -> np.ndarray:
    """Weight bits that each option takes, int64, shape (L, J)."""
    return profile.sizes[:, None] * profile.weight_bits[None, :]


def build_problem(
    profile: Profile,
    cost: np.ndarray,
    budget: Budget,
    *,
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
) -> Problem:
    """The optimization problem of a profile under a budget.

    Args:
        profile: L layers, J options.
        cost: Predicted damage, nats, shape (L, J).
        budget: Limits.
        pins: `PATTERN=BITS` texts; a later one overrides an earlier one.
        ties: Patterns whose layers take one width together.

    Raises:
        BudgetError: The budget lies below what the cheapest allowed options take; names that floor.
        PlanError: A pattern matches nothing, or pins a width that was not profiled.
    """
    pinned = pinned_options(profile, pins)
    resources, limits, names = [], [], []
    if budget.average_bits is not None:
        resources.append(bit_costs(profile))
        limits.append(average_bits_limit(budget.average_bits, int(profile.sizes.sum())))
        names.append(BITS)
    if budget.size_bytes is not None:
        resources.append(profile.payload_bytes)
        limits.append(budget.size_bytes - profile.rest_bytes)
        names.append(BYTES)
    for resource, limit, name in zip(resources, limits, names, strict=True):
        _check_floor(profile, budget, pinned, resource, limit, name)
    return Problem.build(
        cost=cost,
        resources=np.stack(resources),
        limits=np.array(limits, dtype=np.int64),
        resource_names=tuple(names),
        layer_names=tuple(layer.name for layer in profile.layers),
        ties=tuple(group for pattern in ties for group in tie_groups(profile.layers, pattern)),
        pins=pinned,
    )


def pinned_options(profile: Profile, pins: Sequence[str]) -> dict[int, int]:
    """Layer index -> option index for `PATTERN=BITS` texts.

    Raises:
        PlanError: A pattern matches nothing, or its width was not profiled.
    """
    widths = profile.weight_bits.tolist()
    pinned: dict[int, int] = {}
    for text in pins:
        pattern, bits = parse_pin(text)
        if bits not in widths:
            raise PlanError(
                f"pin {text!r}: the profile has widths {', '.join(map(str, widths))}; profile {bits} bits too"
            )
        pinned.update(dict.fromkeys(select(profile.layers, pattern), widths.index(bits)))
    return pinned


def uniform_choice(profile: Profile, problem: Problem) -> np.ndarray | None:
    """Options of the widest uniform plan within the limits, shape (L,), or None if not even the narrowest fits.

    Pinned layers keep their width. A layer that cannot be stored at the uniform width takes the next wider one.
    """
    options = len(profile.options)
    for option in reversed(range(options)):
        reachable = np.isfinite(problem.cost) & (np.arange(options) >= option)
        if not reachable.any(axis=1).all():
            continue
        choice = reachable.argmax(axis=1)
        for layer, pinned in problem.pins.items():
            choice[layer] = pinned
        tied = all(len(set(choice[list(group)].tolist())) == 1 for group in problem.ties)
        if tied and (problem.usage(choice) <= problem.limits).all():
            return choice
    return None


def build_plan(
    profile: Profile,
    choice: Sequence[int] | np.ndarray,
    *,
    mode: str,
    budget: Mapping[str, float],
    cost: np.ndarray | None = None,
    predicted_kl: float | None = None,
    bound: float | None = None,
    measured_kl: float | None = None,
    solver: str = "",
    history: Sequence[Mapping[str, object]] = (),
    notes: Sequence[str] = (),
) -> Plan:
    """The plan that takes option `choice[i]` for layer i.

    Args:
        profile: L layers, J options.
        choice: Option indices, shape (L,).
        mode: Score that made it.
        budget: What was asked for.
        cost: Damage per option in nats, shape (L, J), for the per-layer figures; None leaves them out.
        predicted_kl: Damage of the whole plan, nats.
        bound: Lower bound of that prediction within the budget.
        measured_kl: Measured damage, nats.
        solver: Who found it.
        history: Rounds of the search.
        notes: Remarks.
    """
    layers = []
    for index, (layer, option_index) in enumerate(
        zip(profile.layers, np.asarray(choice).tolist(), strict=True)
    ):
        option = profile.options[option_index]
        activation = layer.activation if option.activation_bits else None
        layers.append(
            PlanLayer(
                name=layer.name,
                kind=layer.kind,
                fingerprint=layer.fingerprint,
                shape=layer.shape,
                size=layer.size,
                weight_bits=option.weight_bits,
                activation_bits=option.activation_bits,
                activation_range=(float(activation.min[0]), float(activation.max[0])) if activation else None,
                payload_bytes=int(profile.payload_bytes[index, option_index]),
                predicted_kl=None if cost is None else float(cost[index, option_index]),
                why="" if cost is None else _why(profile, cost, index, option_index),
            )
        )
    return Plan(
        layers=tuple(layers),
        mode=mode,
        budget=dict(budget),
        container=profile.container,
        block=profile.block,
        rest_bytes=profile.rest_bytes,
        predicted_kl=predicted_kl,
        bound=bound,
        measured_kl=measured_kl,
        solver=solver,
        history=tuple(history),
        notes=tuple(notes),
        provenance=profile.provenance,
    )


def _why(profile: Profile, cost: np.ndarray, layer: int, option: int) -> str:
    parts = []
    for other, verb in ((option - 1, "adds"), (option + 1, "saves")):
        if 0 <= other < len(profile.options):
            damage = abs(float(cost[layer, other] - cost[layer, option]))
            size = abs(int(profile.payload_bytes[layer, other] - profile.payload_bytes[layer, option]))
            sign = "less" if other < option else "more"
            parts.append(
                f"{profile.options[other].weight_bits} bits {verb} {damage:.2e} for {size:,} bytes {sign}"
            )
    return "; ".join(parts)


def _check_floor(
    profile: Profile, budget: Budget, pinned: Mapping[int, int], resource: np.ndarray, limit: int, name: str
) -> None:
    least = np.where(profile.available, resource, np.iinfo(np.int64).max).min(axis=1)
    for layer, option in pinned.items():
        least[layer] = resource[layer, option]
    floor = int(least.sum())
    if floor <= limit:
        return
    held = f" with {len(pinned)} layers pinned" if pinned else ""
    if name == BITS:
        lowest = floor / int(profile.sizes.sum())
        raise BudgetError(
            f"average bits {budget.average_bits} is below the floor of {lowest:.4f}{held}; "
            f"ask for more, profile narrower widths, or pin less"
        )
    raise BudgetError(
        f"size {budget.size_bytes:,} bytes is below the floor of {floor + profile.rest_bytes:,} bytes{held} "
        f"({profile.rest_bytes:,} of them are no quantizable weights); ask for more or profile narrower widths"
    )
