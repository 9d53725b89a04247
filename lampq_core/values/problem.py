"""The allocation problem as arrays: one option per layer, least damage, every resource within its limit."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lampq.core.values.constraints import check_pins, check_ties, joined_ties
from lampq.core.values.errors import BudgetError, RecordError

_INT64_MAX = int(np.iinfo(np.int64).max)
_LARGEST_COST = 1e290


def unit_of(largest: float) -> float:
    """The power of two that brings the largest cost into [500, 1000); 1 where it is zero.

    >>> unit_of(2000.0), unit_of(0.002)
    (4.0, 3.814697265625e-06)
    """
    # Below 2^-1000 the power itself would leave the range of normal numbers; such costs stay small.
    return math.ldexp(1.0, max(math.frexp(largest / 1000)[1], -1000)) if largest else 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """A multiple-choice knapsack problem with any number of resources. Make it with `build`.

    The error table need not be monotone: a wider option may cost more than a narrower one.

    Attributes:
        cost: Damage of each option in units of `scale`, shape (L, J), >= 0; +inf where an option is not
            allowed.
        scale: Nats per unit of `cost`. A power of two, so that scaling loses no digit.
        resources: What each option uses, shape (R, L, J), int64, >= 0.
        limits: The most that may be used, shape (R,), int64, >= 0.
        resource_names: One name per resource, with its unit ("bits", "MACs").
        layer_names: One name per layer.
        ties: Disjoint groups of layers that must take the same option, each sorted, at least two layers.
        pins: Layers whose option is given: layer index to option index.
    """

    cost: np.ndarray
    scale: float
    resources: np.ndarray
    limits: np.ndarray
    resource_names: tuple[str, ...]
    layer_names: tuple[str, ...]
    ties: tuple[tuple[int, ...], ...] = ()
    pins: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, dtype, axes in (
            ("cost", np.float64, 2),
            ("resources", np.int64, 3),
            ("limits", np.int64, 1),
        ):
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != axes:
                raise RecordError(f"{name} is {array.dtype} of shape {array.shape}; use Problem.build")
            # What a caller could still change is copied; then nobody can.
            array = array.copy() if array.flags.writeable else array
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        layers, options = self.cost.shape
        allowed = np.isfinite(self.cost)
        if not 0 < self.scale < math.inf:
            raise RecordError(f"scale is {self.scale}; it must be positive and finite")
        if self.resources.shape != (len(self.limits), layers, options):
            raise RecordError(
                f"resources have shape {self.resources.shape}; expected {(len(self.limits), layers, options)}"
            )
        for what, names, count in (
            ("layer", self.layer_names, layers),
            ("resource", self.resource_names, len(self.limits)),
        ):
            if len(names) != count:
                raise RecordError(f"{len(names)} {what} names for {count} {what}s")
        _check_costs(self.cost, self.scale, allowed, self.layer_names)
        _check_resources(self.resources, allowed, self.resource_names, self.layer_names)
        for name, limit in zip(self.resource_names, self.limits.tolist(), strict=True):
            if limit < 0:
                raise BudgetError(f"{name}: the limit {limit} is negative")
        check_pins(self.pins, allowed, self.layer_names)
        object.__setattr__(self, "ties", joined_ties(self.ties, layers))
        check_ties(self.ties, self.pins, allowed, self.layer_names)

    @classmethod
    def build(
        cls,
        cost: np.ndarray,
        resources: np.ndarray,
        limits: Sequence[int] | np.ndarray | int | None,
        *,
        resource_names: Sequence[str] | None = None,
        layer_names: Sequence[str] | None = None,
        ties: Iterable[Sequence[int]] = (),
        pins: Mapping[int, int] | None = None,
    ) -> Problem:
        """Scale the costs, check everything, and refuse a limit that no choice can meet.

        Costs are scaled once, here, so that the largest lies in [500, 1000): with costs near the absolute
        tolerances of the MILP solvers these call suboptimal answers optimal.

        Args:
            cost: Damage in nats, shape (L, J), >= 0; +inf forbids an option.
            resources: Integers, shape (R, L, J), or (L, J) for a single resource.
            limits: One integer per resource, a single integer, or None for no limit on any.
            resource_names: Names with unit; by default "resource 0", ...
            layer_names: By default "layer 0", ...
            ties: Groups of layer indices that take the same option; groups that overlap are joined.
            pins: Layer index to option index.

        Raises:
            RecordError: A value that cannot be; the message names the layer or resource.
            BudgetError: A limit is no quantity, or below the least that any choice uses.

        >>> problem = Problem.build([[0.5, 0.1], [0.4, 0.2]], [[2, 4], [2, 4]], 6)
        >>> problem.objective(np.array([1, 0])), problem.usage(np.array([1, 0])).tolist()
        (0.5, [6])
        """
        try:
            damage = np.array(cost, dtype=np.float64)
            pinned = {operator.index(layer): operator.index(option) for layer, option in (pins or {}).items()}
        except (TypeError, ValueError) as err:
            raise RecordError(f"costs are numbers, and pins are whole numbers: {err}") from err
        if damage.ndim != 2 or damage.shape[1] == 0:
            raise RecordError(f"costs have shape {damage.shape}; expected (layers, options), with an option")
        use = _as_integers(resources, "resources", RecordError)
        use = use[None] if use.ndim == 2 else use
        if use.ndim != 3 or use.shape[1:] != damage.shape:
            raise RecordError(f"resources have shape {use.shape}; expected (resources, *{damage.shape})")
        if limits is None:
            bounds = np.full(len(use), _INT64_MAX)
        else:
            bounds = np.atleast_1d(_as_integers(limits, "limits", BudgetError))
        if bounds.shape != (len(use),):
            raise BudgetError(f"{bounds.size} limits for {len(use)} resources; give one for each")
        if layer_names is None:
            layer_names = [f"layer {i}" for i in range(len(damage))]
        if resource_names is None:
            resource_names = [f"resource {r}" for r in range(len(use))]
        largest = float(np.max(damage, where=np.isfinite(damage), initial=0.0))
        scale = unit_of(largest)
        problem = cls(
            cost=damage / scale,
            scale=scale,
            resources=use,
            limits=bounds,
            resource_names=tuple(str(name) for name in resource_names),
            layer_names=tuple(str(name) for name in layer_names),
            ties=tuple(tuple(group) for group in ties),
            pins=pinned,
        )
        for name, limit, floor in zip(
            problem.resource_names, bounds.tolist(), problem.floors().tolist(), strict=True
        ):
            if floor > limit:
                raise BudgetError(
                    f"{name}: the limit {limit} is below {floor}, the least that any choice uses; "
                    f"the nearest feasible limit is {floor}"
                )
        return problem

    def objective(self, choice: np.ndarray) -> float:
        """Damage of a choice in nats, correctly rounded; `choice` has shape (L,)."""
        return self.scale * math.fsum(self.cost[np.arange(len(choice)), choice].tolist())

    def usage(self, choice: np.ndarray) -> np.ndarray:
        """Exact amount of each resource that a choice uses, shape (R,), int64."""
        return self.resources[:, np.arange(len(choice)), choice].sum(axis=1)

    def floors(self) -> np.ndarray:
        """Least possible use of each resource on its own, ties and pins kept, shape (R,), int64."""
        problem = self.reduced().problem
        use = np.where(np.isfinite(problem.cost), problem.resources, _INT64_MAX)
        return use.min(axis=2, initial=_INT64_MAX).sum(axis=1)

    def reduced(self) -> Reduction:
        """The equivalent problem without ties and pins: tied layers added up, pinned ones with one option."""
        layers = len(self.cost)
        if not self.ties and not self.pins:
            return Reduction(problem=self, groups=np.arange(layers))
        leader = np.arange(layers)
        for group in self.ties:
            leader[list(group)] = group[0]
        first, groups = np.unique(leader, return_inverse=True)
        cost = np.zeros((len(first), self.cost.shape[1]))
        np.add.at(cost, groups, self.cost)
        for layer, option in self.pins.items():
            kept = cost[groups[layer], option]
            cost[groups[layer]] = np.inf
            cost[groups[layer], option] = kept
        resources = np.zeros((len(self.limits), *cost.shape), dtype=np.int64)
        for total, single in zip(resources, self.resources, strict=True):
            np.add.at(total, groups, np.where(np.isfinite(self.cost), single, 0))
        problem = Problem(
            cost=cost,
            scale=self.scale,
            resources=resources,
            limits=self.limits,
            resource_names=self.resource_names,
            layer_names=tuple(self.layer_names[i] for i in first.tolist()),
        )
        return Reduction(problem=problem, groups=groups)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reduction:
    """A problem without ties and pins, and the way back.

    Attributes:
        problem: The smaller problem; equal choices have equal objective and usage in both.
        groups: The layer of `problem` that stands for each original layer, shape (L,).
    """

    problem: Problem
    groups: np.ndarray

    def expand(self, choice: np.ndarray) -> np.ndarray:
        """A choice for the original layers, shape (L,), from one for `problem`."""
        return choice[self.groups]


def _as_integers(values: object, what: str, error: type[RecordError] | type[BudgetError]) -> np.ndarray:
    """A fresh int64 array; floats are refused rather than rounded."""
    try:
        array = np.array(values)
    except (ValueError, OverflowError) as err:
        raise error(f"{what} are no array of integers: {err}") from err
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu" or (array.dtype == np.uint64 and array.max() > _INT64_MAX):
        raise error(f"{what} have type {array.dtype}; they must be integers that fit 64 bits, signed")
    return array.astype(np.int64)


def _check_costs(cost: np.ndarray, scale: float, allowed: np.ndarray, names: tuple[str, ...]) -> None:
    for bad, what in (
        (np.isnan(cost), "is NaN; measure the layer again or leave it out"),
        (cost < 0, "is negative; damage is at least zero"),
    ):
        if bad.any():
            layer, option = np.argwhere(bad)[0].tolist()
            raise RecordError(f"layer {names[layer]!r}: the cost of option {option} {what}")
    if float(np.max(cost, where=allowed, initial=0.0)) * scale > _LARGEST_COST:
        layer, option = np.argwhere(np.where(allowed, cost, 0.0) * scale > _LARGEST_COST)[0].tolist()
        raise RecordError(
            f"layer {names[layer]!r}: the cost {cost[layer, option] * scale:g} of option {option} "
            f"is too large to add up; forbid the option instead"
        )
    empty = ~allowed.any(axis=1)
    if empty.any():
        raise RecordError(
            f"layer {names[int(np.argmax(empty))]!r}: no option is allowed (every cost is infinite)"
        )


def _check_resources(
    resources: np.ndarray, allowed: np.ndarray, resource_names: tuple[str, ...], names: tuple[str, ...]
) -> None:
    if resources.size == 0:
        return
    if resources.min() < 0:
        resource, layer, option = np.argwhere(resources < 0)[0].tolist()
        raise RecordError(
            f"layer {names[layer]!r}: {resource_names[resource]} of option {option} is negative "
            f"({resources[resource, layer, option]})"
        )
    if resources.max() <= _INT64_MAX // allowed.shape[0]:
        return
    for name, use in zip(resource_names, resources, strict=True):
        largest = np.where(allowed, use, 0).max(axis=1)
        if sum(largest.tolist()) > _INT64_MAX:
            raise RecordError(f"{name}: the sum over the layers exceeds 64-bit integers; use a coarser unit")
