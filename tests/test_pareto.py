"""The trade-off curve against enumeration, against the exact solver, and its fallback."""

import itertools
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_cases import random_sizes, vit

from lampq.core.allocating import pareto as module
from lampq.core.allocating.frontier import Lists, Table
from lampq.core.allocating.hull import lower_hull, relax
from lampq.core.allocating.knapsack import lighten, undominated
from lampq.core.allocating.pareto import pareto
from lampq.core.allocating.smallest import smallest
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.problem import Problem
from lampq.solvers import solve

steady = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def problems(draw):
    """Up to 5 layers of up to 4 options, one resource: any sizes, ties in cost, gaps, ties and pins."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 5)))
    kind = rng.integers(4)
    if kind == 0:
        use, cost = rng.integers(0, 9, shape) * 48, rng.random(shape)
    elif kind == 1:
        use, cost = rng.integers(0, 4, shape), rng.integers(0, 4, shape).astype(float)
    elif kind == 2:
        use, cost = rng.integers(0, 2**50, shape), 10.0 ** rng.uniform(-9, 3, shape)
    else:
        use, cost = np.sort(rng.integers(1, 10**9, shape), axis=1), -np.sort(-rng.random(shape), axis=1)
    cost[rng.random(shape) < 0.1] = np.inf
    cost[:, -1] = np.where(np.isfinite(cost[:, -1]), cost[:, -1], 1.0)
    ties = [rng.choice(shape[0], size=2, replace=False)] if shape[0] > 1 and rng.random() < 0.3 else []
    pins = {int(rng.integers(shape[0])): shape[1] - 1} if rng.random() < 0.3 else {}
    free = Problem.build(cost, use, None, ties=ties, pins=pins)
    if rng.random() < 0.5:
        return free
    top = int(np.where(np.isfinite(cost), use, 0).max(axis=1).sum())
    limit = int(rng.integers(int(free.floors()[0]), top + 1))
    return Problem.build(cost, use, limit, ties=ties, pins=pins)


def enumerated(problem):
    """Undominated (size, damage) by trying every choice; damages as exact fractions to settle ties."""
    best = {}
    layers, options = problem.cost.shape
    for choice in itertools.product(range(options), repeat=layers):
        if any(choice[layer] != option for layer, option in problem.pins.items()):
            continue
        if any(len({choice[layer] for layer in group}) > 1 for group in problem.ties):
            continue
        costs = [float(problem.cost[i, j]) for i, j in enumerate(choice)]
        size = sum(int(problem.resources[0, i, j]) for i, j in enumerate(choice))
        if np.inf in costs or size > problem.limits[0]:
            continue
        damage = sum(map(Fraction, costs))
        best[size] = min(best.get(size, damage), damage)
    points, least = [], None
    for size in sorted(best):
        if least is None or best[size] < least:
            least = best[size]
            points.append((size, float(least) * problem.scale))
    return points


def check(problem, curve, points):
    # Sums of floats may split or join points whose damages differ by rounding alone, so compare as functions.
    for size, damage in points:
        assert curve.damages[curve.at(size)] == pytest.approx(damage, rel=1e-12, abs=1e-300)
    sizes = [size for size, _ in points]
    assert set(curve.sizes.tolist()) <= set(sizes) or len(curve) == len(points)
    assert (np.diff(curve.sizes) > 0).all() and (np.diff(curve.damages) < 0).all()
    for index in range(len(curve)):
        choice = curve.choice(index)
        assert problem.usage(choice).tolist() == [curve.sizes[index]]
        assert problem.objective(choice) == pytest.approx(curve.damages[index], rel=1e-12, abs=1e-300)
        assert all(choice[layer] == option for layer, option in problem.pins.items())
        assert all(len(set(choice[list(group)].tolist())) == 1 for group in problem.ties)


@steady
@given(problems())
def test_the_curve_is_that_of_enumeration(problem):
    curve = pareto(problem)
    assert curve.complete
    check(problem, curve, enumerated(problem))


@steady
@given(problems())
def test_lists_and_table_give_the_same_curve(problem):
    cost = problem.reduced().problem.cost
    weight, _, _ = lighten(problem.reduced().problem.resources[0], np.isfinite(cost))
    span = min(int(weight.max(axis=1).sum()), 5000)
    table, lists = Table(cost, weight, span), Lists.build(cost, weight, span)
    assert table.weights.tolist() == lists.weights.tolist()
    np.testing.assert_allclose(table.costs, lists.costs, rtol=1e-12)
    rows = np.arange(len(cost))
    for programme in (table, lists):
        for choice, size in zip(programme.choices(), programme.weights, strict=True):
            assert weight[rows, choice].sum() == size


@pytest.mark.parametrize("make", [vit, random_sizes])
def test_every_point_of_fifty_layers_is_the_exact_optimum(make):
    case = make(48, 3)
    curve = pareto(Problem.build(case.cost, case.resources, None))
    assert curve.complete
    rng = np.random.default_rng(0)
    for limit in rng.integers(curve.sizes[0], curve.sizes[-1] + 1, 40).tolist():
        best = solve(Problem.build(case.cost, case.resources, limit))
        assert curve.damages[curve.at(limit)] == pytest.approx(best.objective, rel=1e-9)


def test_neighbours_are_the_next_plans_on_either_side():
    curve = pareto(Problem.build([[3.0, 1.0], [2.0, 0.5]], [[1, 2], [1, 3]], None))
    assert curve.sizes.tolist() == [2, 3, 5]
    assert curve.neighbours(3) == (0, 2)
    assert curve.neighbours(4) == (1, 2)
    assert curve.neighbours(2) == (None, 1)
    assert curve.neighbours(5) == (1, None)
    assert curve.at(4) == 1
    with pytest.raises(BudgetError, match="limit 1 is below 2"):
        curve.at(1)


def test_the_knee_is_where_the_curve_turns():
    # Damages 10, 1, 0.9, 0.8 at equal steps: all the gain is in the first.
    curve = pareto(Problem.build([[10.0, 1.0, 0.9, 0.8]], [[1, 2, 3, 4]], None))
    assert curve.knee == 1


@pytest.mark.parametrize(
    ("cost", "size"), [([[1.0]], [[3]]), ([[1.0, 1.0]], [[3, 4]]), ([[0.0, 2.0]], [[0, 0]])]
)
def test_a_curve_of_one_point(cost, size):
    curve = pareto(Problem.build(cost, size, None))
    assert (len(curve), curve.knee, curve.choices.tolist()) == (1, 0, [[0]])
    assert curve.neighbours(int(curve.sizes[0])) == (None, None)


def test_no_layers_have_one_empty_plan():
    curve = pareto(Problem.build(np.zeros((0, 2)), np.zeros((1, 0, 2), dtype=int), None))
    assert (curve.sizes.tolist(), curve.damages.tolist(), curve.choices.shape) == ([0], [0.0], (1, 0))


def test_a_curve_has_one_resource():
    for count in (0, 2):
        problem = Problem.build([[1.0, 0.0]], np.ones((count, 1, 2), dtype=int), None)
        with pytest.raises(RecordError, match="one resource"):
            pareto(problem)


def test_a_limit_below_the_floor_is_refused():
    problem = Problem(
        cost=np.array([[1.0, 0.0]]),
        scale=1.0,
        resources=np.array([[[3, 4]]]),
        limits=np.array([2]),
        resource_names=("bits",),
        layer_names=("a",),
    )
    with pytest.raises(BudgetError, match="bits: the limit 2 is below 3"):
        pareto(problem)


def test_too_many_states_fall_back_to_hull_and_grid():
    # Equal ratios of damage to size: every one of 7^24 choices is undominated.
    size = np.sort(np.random.default_rng(2).integers(1, 2**40, (24, 7)), axis=1)
    problem = Problem.build((size.max() - size) / 2**30, size, None, ties=[(3, 5)], pins={0: 2})
    curve = pareto(problem, solve=partial(solve, time_limit_s=0.01))
    bare = pareto(problem)
    assert not curve.complete and not bare.complete
    assert len(curve) > len(bare) > 2
    assert (np.diff(curve.sizes) > 0).all() and (np.diff(curve.damages) < 0).all()
    for index in range(0, len(curve), 7):
        choice = curve.choice(index)
        assert problem.usage(choice)[0] == curve.sizes[index]
        assert problem.objective(choice) == pytest.approx(curve.damages[index], rel=1e-12)
        assert choice[0] == 2 and choice[3] == choice[5]


def test_points_of_the_fallback_are_exact_optima():
    case = random_sizes(40, 1)
    problem = Problem.build(case.cost, case.resources, None)
    full = pareto(problem)
    weight, floor, divisor = lighten(problem.resources[0], np.isfinite(problem.cost))
    outline = module._outline(problem, floor, divisor, weight, int(weight.max(axis=1).sum()), solve)
    assert len(outline) >= 64
    for size, damage in zip(outline.sizes.tolist(), outline.damages.tolist(), strict=True):
        assert damage == pytest.approx(full.damages[full.at(size)], rel=1e-9)


def test_the_smallest_plan_within_a_damage_is_the_first_of_the_curve():
    case = random_sizes(20, 4)
    problem = Problem.build(case.cost, case.resources, None)
    curve = pareto(problem)
    for damage in np.geomspace(curve.damages[-1], curve.damages[0], 12):
        found = smallest(problem, float(damage) * (1 + 1e-9), solve)
        first = int(np.flatnonzero(curve.damages <= damage * (1 + 1e-9))[0])
        assert problem.usage(found.choice)[0] == curve.sizes[first]
        assert found.objective == pytest.approx(curve.damages[first], rel=1e-9)


def test_the_smallest_plan_needs_a_resource():
    with pytest.raises(RecordError, match="no resource 0"):
        smallest(Problem.build([[1.0, 0.0]], np.ones((0, 1, 2), dtype=int), None), 1.0, solve)


def test_an_impossible_damage_names_the_least():
    problem = Problem.build([[3.0, 1.0]], [[1, 2]], None)
    with pytest.raises(BudgetError, match="no choice loses less than 1"):
        smallest(problem, 0.5, solve)
    with pytest.raises(BudgetError, match="at least 0"):
        smallest(problem, float("nan"), solve)


# --- the pieces ---------------------------------------------------------------------------------------------


@steady
@given(st.integers(0, 2**32 - 1))
def test_the_hull_is_that_of_all_chords(seed):
    rng = np.random.default_rng(seed)
    weight, cost = rng.integers(0, 12, (3, 6)), rng.integers(0, 12, (3, 6)).astype(float)
    cost[rng.random((3, 6)) < 0.2] = np.inf
    cost[:, 0] = 5.0
    hull = lower_hull(cost, weight)
    for row in range(3):
        found = {(int(weight[row, o]), float(cost[row, o])) for o in hull.option[hull.row == row].tolist()}
        points = {(int(w), float(c)) for w, c in zip(weight[row], cost[row], strict=True) if np.isfinite(c)}
        # The reference: no other point as light and as cheap, and above no chord of two others.
        free = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
        vertices = {
            p
            for p in free
            if not any(
                a[0] < p[0] < b[0] and (p[1] - a[1]) * (b[0] - a[0]) >= (b[1] - a[1]) * (p[0] - a[0])
                for a in free
                for b in free
            )
        }
        assert found == vertices


@steady
@given(st.integers(0, 2**32 - 1))
def test_the_relaxation_bounds_every_choice(seed):
    rng = np.random.default_rng(seed)
    weight, cost = rng.integers(0, 20, (4, 4)), rng.random((4, 4))
    capacity = int(rng.integers(weight.min(axis=1).sum(), weight.max(axis=1).sum() + 1))
    relaxed = relax(lower_hull(cost, weight), weight, capacity)
    rows = np.arange(4)
    assert weight[rows, relaxed.base].sum() == capacity - relaxed.slack
    bound = cost[rows, relaxed.base].sum() - relaxed.rate * relaxed.slack
    best = min(
        cost[rows, choice].sum()
        for choice in itertools.product(range(4), repeat=4)
        if weight[rows, choice].sum() <= capacity
    )
    assert bound <= best + 1e-12
    if relaxed.tight:
        assert cost[rows, relaxed.base].sum() == pytest.approx(best, rel=1e-12)


@steady
@given(st.integers(0, 2**32 - 1))
def test_undominated_states_are_those_nothing_undercuts(seed):
    rng = np.random.default_rng(seed)
    weight, cost = rng.integers(0, 8, 20), rng.integers(0, 8, 20).astype(float)
    pairs = set(zip(weight.tolist(), cost.tolist(), strict=True))
    expected = {p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in pairs)}
    kept = undominated(weight, cost)
    assert len(kept) == len(expected)
    assert set(zip(weight[kept].tolist(), cost[kept].tolist(), strict=True)) == expected
