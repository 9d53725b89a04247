"""The problem record, its reduction, certification, and the explanation of clashing limits."""

import copy
import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampq.core.allocating.certify import certify
from lampq.core.allocating.infeasible import explain_infeasible
from lampq.core.values.errors import BudgetError, RecordError, SolverError
from lampq.core.values.problem import Problem, unit_of
from lampq.core.values.solution import Solution, Status, Stop
from lampq.solvers import solve

COST = [[0.9, 0.3, 0.0], [0.8, 0.5, 0.1], [0.7, 0.2, 0.1]]
SIZES = [[2, 4, 8], [4, 8, 16], [1, 2, 4]]


def build(**changes):
    values = {
        "cost": COST,
        "resources": SIZES,
        "limits": 20,
        "layer_names": ["a", "b", "c"],
        "resource_names": ["bits"],
    }
    return Problem.build(**{**values, **changes})


def solution(choice, **changes):
    values = {
        "status": Status.OPTIMAL,
        "stop": Stop.FINISHED,
        "choice": None if choice is None else np.array(choice),
        "objective": 1.2,
        "bound": 1.2,
        "seconds": 0.0,
        "solver": "x",
    }
    return Solution(**{**values, **changes})


# --- building -----------------------------------------------------------------------------------------------


def test_costs_are_scaled_once_without_loss():
    cost = np.array([[0.005, 1e-7], [0.003, 0.0]])
    problem = Problem.build(cost, [[1, 2], [1, 2]], 4)
    assert 500 <= problem.cost.max() < 1000
    assert math.log2(problem.scale).is_integer()
    np.testing.assert_array_equal(problem.cost * problem.scale, cost)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.floats(min_value=1e-250, max_value=1e290))
def test_unit_brings_any_largest_cost_into_range(largest):
    assert 500 <= largest / unit_of(largest) < 1000


def test_unit_of_denormal_costs_is_still_a_number():
    assert 0 < 5e-324 / unit_of(5e-324) < 1000


def test_zero_costs_have_a_scale():
    assert Problem.build(np.zeros((2, 2)), [[1, 2], [1, 2]], 4).scale == 1.0


def test_objective_and_usage_are_those_of_the_inputs():
    problem = build()
    for choice in itertools.product(range(3), repeat=3):
        assert problem.objective(np.array(choice)) == pytest.approx(
            sum(COST[i][j] for i, j in enumerate(choice)), rel=1e-15
        )
        assert problem.usage(np.array(choice)).tolist() == [sum(SIZES[i][j] for i, j in enumerate(choice))]


def test_arrays_are_copies_nobody_can_change():
    cost = np.array(COST)
    problem = build(cost=cost)
    cost[0, 0] = 7.0
    assert problem.objective(np.zeros(3, dtype=int)) == pytest.approx(2.4)
    with pytest.raises(ValueError, match="read-only"):
        problem.cost[0, 0] = 1.0
    with pytest.raises(AttributeError):
        problem.scale = 2.0


def test_a_problem_survives_pickling_and_copying():
    problem = build(ties=[(0, 1)], pins={2: 1})
    for other in (pickle.loads(pickle.dumps(problem)), copy.deepcopy(problem)):
        np.testing.assert_array_equal(other.cost, problem.cost)
        assert (other.ties, other.pins) == (problem.ties, problem.pins)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"cost": [[0.9, np.nan, 0], *COST[1:]]}, RecordError, ["'a'", "option 1", "NaN"]),
        ({"cost": [COST[0], [0.9, -0.1, 0], COST[2]]}, RecordError, ["'b'", "option 1", "negative"]),
        ({"cost": [COST[0], COST[1], [np.inf] * 3]}, RecordError, ["'c'", "no option"]),
        ({"cost": [COST[0], COST[1], [1e300, 0, 0]]}, RecordError, ["'c'", "1e+300", "too large"]),
        ({"cost": np.zeros((3, 0)), "resources": np.zeros((3, 0), dtype=int)}, RecordError, ["(3, 0)"]),
        ({"cost": np.zeros(3)}, RecordError, ["(3,)"]),
        ({"resources": [[2, 4], [4, 8], [1, 2]]}, RecordError, ["(1, 3, 2)", "(3, 3)"]),
        ({"resources": [[2, 4, 8], [4, 8, -16], [1, 2, 4]]}, RecordError, ["'b'", "bits", "option 2", "-16"]),
        ({"resources": [[2.5, 4, 8], [4, 8, 16], [1, 2, 4]]}, RecordError, ["float64", "integers"]),
        ({"resources": [[2**63, 4, 8], [4, 8, 16], [1, 2, 4]]}, RecordError, ["integers", "64 bits"]),
        ({"resources": [[2**62, 4, 8], [2**62, 8, 16], [1, 2, 4]]}, RecordError, ["bits", "64-bit", "unit"]),
        ({"layer_names": ["a", "b"]}, RecordError, ["2 layer names", "3 layers"]),
        ({"limits": [20, 30]}, BudgetError, ["2 limits", "1 resources"]),
        ({"limits": 20.5}, BudgetError, ["float64", "integers"]),
        ({"limits": -1}, BudgetError, ["bits", "-1", "negative"]),
        ({"limits": 2**70}, BudgetError, ["64 bits"]),
        ({"limits": 6}, BudgetError, ["bits", "limit 6", "below 7", "nearest feasible limit is 7"]),
        ({"pins": {0: 2}, "limits": 12}, BudgetError, ["limit 12", "below 13"]),
        ({"pins": {3: 0}}, RecordError, ["no layer 3"]),
        ({"pins": {0: 3}}, RecordError, ["'a'", "option 3 of 3"]),
        ({"pins": {0: 0}, "cost": [[np.inf, 1, 0], *COST[1:]]}, RecordError, ["'a'", "not allowed"]),
        ({"ties": [(0, 3)]}, RecordError, ["no layer 3"]),
        ({"ties": [(0, 1)], "pins": {0: 0, 1: 1}}, RecordError, ["'a'", "'b'", "0 and 1"]),
        ({"ties": [(0, 2), (2, 1)], "pins": {0: 0, 1: 1}}, RecordError, ["'a'", "'b'"]),
        (
            {"ties": [(0, 1)], "cost": [[1, np.inf, np.inf], [np.inf, 1, 1], COST[2]]},
            RecordError,
            ["'a'", "'b'", "no allowed option in common"],
        ),
        (
            {"ties": [(0, 1)], "pins": {0: 0}, "cost": [COST[0], [np.inf, 1, 1], COST[2]]},
            RecordError,
            ["'a'", "'b'", "no allowed option in common"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_in_one_line(changes, error, words):
    with pytest.raises(error) as caught:
        build(**changes)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sums_are_checked_over_allowed_options_only():
    huge = [[2**62, 4, 8], [2**62, 8, 16], [1, 2, 4]]
    build(resources=huge, cost=[[np.inf, 0.3, 0.0], *COST[1:]], limits=2**62 + 20)


def test_the_largest_sum_that_fits_is_accepted():
    problem = Problem.build([[1.0], [1.0]], [[2**62], [2**62 - 1]], 2**63 - 1)
    assert problem.usage(np.zeros(2, dtype=int)).tolist() == [2**63 - 1]


def test_floor_counts_ties():
    # Apart, the layers can use 1 each; together they share an option, which costs at least 5.
    with pytest.raises(BudgetError, match="below 5"):
        Problem.build(np.ones((2, 2)), [[1, 4], [4, 1]], 4, ties=[(0, 1)])


# --- reduction ----------------------------------------------------------------------------------------------


@st.composite
def problems(draw, layers=4, options=3, resources=2):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (int(rng.integers(1, layers + 1)), int(rng.integers(1, options + 1)))
    cost = rng.random(shape)
    cost[rng.random(shape) < 0.15] = np.inf
    # The last option is always there, so that ties and pins can be met.
    cost[:, -1] = rng.random(shape[0])
    use = rng.integers(0, 12, (int(rng.integers(1, resources + 1)), *shape))
    ties = [rng.choice(shape[0], size=2) for _ in range(rng.integers(0, 3))] if shape[0] > 1 else []
    pins = {int(rng.integers(shape[0])): shape[1] - 1} if rng.random() < 0.3 else {}
    return Problem.build(cost, use, None, ties=ties, pins=pins)


def obeys(problem, choice):
    return (
        bool(np.isfinite(problem.cost[np.arange(len(choice)), choice]).all())
        and all(choice[layer] == option for layer, option in problem.pins.items())
        and all(len({choice[layer] for layer in group}) == 1 for group in problem.ties)
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problems())
def test_reduction_keeps_exactly_the_choices_that_obey_ties_and_pins(problem):
    reduction = problem.reduced()
    small = reduction.problem
    assert not small.ties and not small.pins
    layers, options = small.cost.shape
    reached = set()
    for short in itertools.product(range(options), repeat=layers):
        if not np.isfinite(small.cost[np.arange(layers), short]).all():
            continue
        full = reduction.expand(np.array(short))
        assert obeys(problem, full)
        assert small.objective(np.array(short)) == pytest.approx(problem.objective(full), rel=1e-14)
        assert small.usage(np.array(short)).tolist() == problem.usage(full).tolist()
        reached.add(tuple(full.tolist()))
    everything = itertools.product(range(options), repeat=len(problem.cost))
    assert reached == {choice for choice in everything if obeys(problem, choice)}


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problems())
def test_floors_are_the_least_use_of_any_choice(problem):
    options = problem.cost.shape[1]
    uses = [
        problem.usage(np.array(choice))
        for choice in itertools.product(range(options), repeat=len(problem.cost))
        if obeys(problem, choice)
    ]
    assert problem.floors().tolist() == np.min(uses, axis=0).tolist()


# --- certification ------------------------------------------------------------------------------------------


def test_a_right_answer_is_certified_with_the_objective_recomputed():
    answer = certify(build(), solution([1, 1, 2], objective=0.9 + 1e-9, bound=0.9 + 2e-9))
    assert answer.objective == pytest.approx(0.9, abs=1e-15)
    assert answer.bound == answer.objective
    assert answer.gap == 0


def test_an_optimum_that_its_bound_does_not_support_is_only_feasible():
    answer = certify(build(), solution([1, 1, 2], objective=0.9, bound=0.5))
    assert answer.status is Status.FEASIBLE
    assert answer.gap == pytest.approx(4 / 9)


def test_a_choice_that_meets_its_bound_is_optimal():
    assert (
        certify(build(), solution([1, 1, 2], status=Status.FEASIBLE, objective=0.9, bound=0.9)).status
        is Status.OPTIMAL
    )


def test_an_answer_without_a_choice_passes():
    nothing = solution(None, status=Status.INFEASIBLE, objective=np.inf, bound=np.inf)
    assert certify(build(), nothing) is nothing
    assert nothing.gap == np.inf


@pytest.mark.parametrize(
    ("choice", "changes", "problem", "words"),
    [
        ([0, 0], {}, {}, ["2 options", "3 layers"]),
        ([0, 3, 0], {}, {}, ["'b'", "option 3 of 3"]),
        ([0, -1, 0], {}, {}, ["'b'", "option -1"]),
        ([0, 0, 0], {}, {"cost": [[np.inf, 1, 0], *COST[1:]]}, ["'a'", "not allowed"]),
        ([0, 0, 0], {}, {"pins": {1: 1}}, ["'b'", "pinned to option 1", "got 0"]),
        ([0, 1, 0], {}, {"ties": [(0, 1)]}, ["'a'", "'b'", "0 and 1"]),
        ([2, 2, 2], {}, {}, ["bits is 28", "limit 20", "by 8"]),
        ([1, 1, 2], {"objective": 0.8}, {}, ["claims objective 0.8", "0.9"]),
        ([1, 1, 2], {"objective": 0.9, "bound": 0.91}, {}, ["bound 0.91", "above"]),
    ],
)
def test_certification_names_the_check_that_failed(choice, changes, problem, words):
    with pytest.raises(SolverError) as caught:
        certify(build(**problem), solution(choice, **changes))
    for word in ["x:", *words]:
        assert word in str(caught.value)


def test_an_excess_of_one_in_the_nineteenth_digit_is_seen():
    problem = Problem.build([[1.0, 0.0], [1.0, 0.0]], [[0, 2**61], [0, 2**61 + 1]], 2**62)
    with pytest.raises(SolverError, match=r"by 1$"):
        certify(problem, solution([1, 1], objective=0.0, bound=0.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": None},
        {"choice": np.array([0.5])},
        {"choice": np.array([[0]])},
        {"status": Status.INFEASIBLE},
        {"bound": math.nan},
    ],
)
def test_a_solution_that_contradicts_itself_is_refused(changes):
    right = solution([0])
    with pytest.raises(SolverError):
        replace(right, **changes)


# --- clashing limits ----------------------------------------------------------------------------------------


def least_use(problem, resource):
    """By enumeration: the least use of a resource within all other limits."""
    best = None
    for choice in itertools.product(range(problem.cost.shape[1]), repeat=len(problem.cost)):
        use = problem.usage(np.array(choice))
        fits = [used <= limit for used, limit in zip(use, problem.limits, strict=True)]
        if obeys(problem, choice) and all(ok for other, ok in enumerate(fits) if other != resource):
            best = int(use[resource]) if best is None else min(best, int(use[resource]))
    return best


def test_clashing_limits_are_named_with_their_nearest_feasible_values():
    rng = np.random.default_rng(3)
    first = np.sort(rng.integers(1, 50, (5, 3)), axis=1)
    use = np.stack([first, 60 - first, first * 2])
    problem = Problem.build(
        rng.random((5, 3)),
        use,
        [int(first.min(axis=1).sum()) + 5, int((60 - first).min(axis=1).sum()) + 5, 10_000],
        resource_names=["bits", "nanoseconds", "unlimited"],
    )
    clash = explain_infeasible(problem, solve)
    assert clash.limits == ("bits", "nanoseconds")
    assert clash.nearest == {"bits": least_use(problem, 0), "nanoseconds": least_use(problem, 1)}
    for word in ("bits", "nanoseconds", str(clash.nearest["bits"]), str(clash.nearest["nanoseconds"])):
        assert word in clash.message
    # The advice works.
    for resource in (0, 1):
        limits = problem.limits.copy()
        limits[resource] = least_use(problem, resource)
        assert solve(replace(problem, limits=limits)).status is Status.OPTIMAL
        limits[resource] -= 1
        assert solve(replace(problem, limits=limits)).status is Status.INFEASIBLE


def test_a_limit_that_no_single_change_can_save_says_so():
    # Each of three layers must spend 4 of one of three resources; every two limits leave room, all three do
    # not.
    use = np.zeros((3, 2, 3), dtype=int)
    for option in range(3):
        use[option, :, option] = 4
    problem = Problem.build(np.ones((2, 3)), use, [3, 3, 3])
    clash = explain_infeasible(problem, solve)
    assert set(clash.limits) == {"resource 0", "resource 1", "resource 2"}
    assert clash.nearest == {f"resource {r}": 8 for r in range(3)}


def test_limits_that_can_be_met_need_no_explanation():
    assert explain_infeasible(build(), solve) is None
