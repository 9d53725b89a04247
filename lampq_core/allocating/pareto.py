"""The whole trade-off between one resource and damage, from a single dynamic programme."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lampq.core.allocating.frontier import frontier
from lampq.core.allocating.hull import lower_hull
from lampq.core.allocating.knapsack import lighten, undominated
from lampq.core.allocating.smallest import limited
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution

# Entries of the choices that the fallback keeps, and its points.
_ENTRIES, _POINTS = 1 << 26, 1024
_GRID = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Choices that no other choice beats in both size and damage.

    Attributes:
        sizes: What each uses of the resource, rising, shape (P,), int64.
        damages: Nats, falling, shape (P,).
        complete: Whether these are all such choices. Otherwise they are the vertices of the convex hull
            (exact), and exact optima at evenly spaced sizes where a solver was given.
    """

    sizes: np.ndarray
    damages: np.ndarray
    complete: bool
    # Reads back all choices; they are kept once someone asks, hence no slots.
    _recover: Callable[[], np.ndarray]

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def choices(self) -> np.ndarray:
        """Option per layer of every point, shape (P, L), small integers."""
        return self._recover()

    def choice(self, index: int) -> np.ndarray:
        """Option per layer of one point, shape (L,), int64."""
        return self.choices[index].astype(np.int64)

    def at(self, limit: int) -> int:
        """Index of the point of least damage within a limit.

        Raises:
            BudgetError: The limit is below every point.
        """
        index = int(np.searchsorted(self.sizes, limit, side="right")) - 1
        if index < 0:
            raise BudgetError(f"the limit {limit} is below {self.sizes[0]}, the least that any choice uses")
        return index

    def neighbours(self, size: int) -> tuple[int | None, int | None]:
        """Indices of the next point below and the next above a size; None at the ends."""
        below = int(np.searchsorted(self.sizes, size, side="left")) - 1
        above = int(np.searchsorted(self.sizes, size, side="right"))
        return (below if below >= 0 else None), (above if above < len(self.sizes) else None)

    @property
    def knee(self) -> int:
        """Index of the point farthest below the line between the ends, both axes scaled to 0..1.

        Source: Satopaa et al. (2011), Finding a "kneedle" in a haystack.
        """
        size = (self.sizes - self.sizes[0]) / max(1, int(self.sizes[-1] - self.sizes[0]))
        span = self.damages[0] - self.damages[-1]
        damage = (self.damages - self.damages[-1]) / (span if span > 0 else 1.0)
        return int(np.argmin(size + damage))


def pareto(problem: Problem, *, solve: Callable[[Problem], Solution] | None = None) -> Curve:
    """Every undominated pair of size and damage, up to the problem's limit.

    Sizes are divided by their greatest common divisor. Where that leaves few distinct sums (the layers of a
    transformer), a table indexed by the sum is filled; otherwise lists of undominated partial choices are
    merged. Either way each layer leaves one byte or a few per state, from which all choices are read back.
    Where even the lists grow too long, the curve falls back to the vertices of its convex hull, and to optima
    on a grid.

    Args:
        problem: With one resource. Ties and pins hold.
        solve: Solver for the grid of the fallback, for instance `lampq.solvers.solve`, with a time limit
            where one may be needed; None leaves the grid out.

    Raises:
        RecordError: The problem has no resource, or several.
        BudgetError: No choice keeps the limit.

    >>> problem = Problem.build([[3.0, 1.0], [2.0, 0.5]], [[1, 2], [1, 3]], None)
    >>> curve = pareto(problem)
    >>> curve.sizes.tolist(), curve.damages.tolist(), curve.choices.tolist()
    ([2, 3, 5], [5.0, 3.0, 1.5], [[0, 0], [1, 0], [1, 1]])
    """
    if len(problem.limits) != 1:
        raise RecordError(f"a curve needs one resource; this problem has {len(problem.limits)}")
    reduction = problem.reduced()
    cost = reduction.problem.cost
    weight, floor, divisor = lighten(reduction.problem.resources[0], np.isfinite(cost))
    limit = int(problem.limits[0])
    if floor > limit:
        raise BudgetError(
            f"{problem.resource_names[0]}: the limit {limit} is below {floor}, the least that any choice uses"
        )
    span = min(int(weight.max(axis=1, initial=0).sum()), (limit - floor) // divisor)
    front = frontier(cost, weight, span)
    if front is None:
        return _outline(problem, floor, divisor, weight, span, solve)
    return Curve(
        sizes=floor + divisor * front.weights,
        damages=problem.scale * front.costs,
        complete=True,
        _recover=lambda: front.choices()[:, reduction.groups],
    )


def _outline(
    problem: Problem,
    floor: int,
    divisor: int,
    weight: np.ndarray,
    span: int,
    solve: Callable[[Problem], Solution] | None,
) -> Curve:
    """Vertices of the convex hull of the curve, and optima at evenly spaced sizes."""
    reduction = problem.reduced()
    cost = reduction.problem.cost
    layers = len(cost)
    hull = lower_hull(cost, weight)
    order = np.argsort(-hull.rate, kind="stable")
    filled = np.cumsum(hull.step_weight[order])
    # A vertex per number of steps taken, thinned so that all their choices fit in memory.
    steps = int(np.searchsorted(filled, span, side="right"))
    points = max(2, min(_POINTS, _ENTRIES // layers))
    counts = np.unique(np.linspace(0, steps, min(points, steps + 1)).round().astype(np.int64))
    rows = hull.row[hull.step[order]]
    vertex = hull.first.copy()
    choices, done = [], 0
    dtype = np.min_scalar_type(cost.shape[1] - 1)
    for count in counts.tolist():
        np.add.at(vertex, rows[done:count], 1)
        done = count
        choices.append(hull.option[vertex].astype(dtype)[reduction.groups])
    if solve is not None:
        for limit in np.linspace(floor, floor + divisor * span, _GRID + 2)[1:-1].tolist():
            solution = solve(limited(problem, int(limit)))
            if solution.choice is not None:
                choices.append(solution.choice.astype(dtype))
    sizes = np.array([problem.usage(choice)[0] for choice in choices])
    damages = np.array([problem.objective(choice) for choice in choices])
    front = undominated(sizes, damages)
    table = np.array(choices)[front]
    return Curve(sizes=sizes[front], damages=damages[front], complete=False, _recover=lambda: table)
