"""One contract for all solvers: right answers, honest claims, silence."""

from dataclasses import replace

import mip
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from solver_cases import CASES, HAWQ_V3, Case, brute_force, random_sizes, resnet18, two_budgets, vit

from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution, Status, Stop
from lampq.solvers import SOLVERS, exact, solve

NAMES = ("auto", *SOLVERS)
EXACT = 1e-9


def steady(examples: int) -> settings:
    """The same examples every time, however busy the machine."""
    return settings(max_examples=examples, deadline=None, derandomize=True)


def check(problem: Problem, answer: Solution, objective: float) -> None:
    """An optimal answer: right, within every limit in Python integers, bounded, ties and pins kept."""
    assert answer.status is Status.OPTIMAL
    assert answer.objective == pytest.approx(objective, rel=EXACT, abs=0)
    assert answer.bound <= answer.objective
    assert answer.gap <= 1e-6
    choice = answer.choice.tolist()
    for use, limit in zip(problem.resources.tolist(), problem.limits.tolist(), strict=True):
        assert sum(use[i][j] for i, j in enumerate(choice)) <= limit
    for group in problem.ties:
        assert len({choice[layer] for layer in group}) == 1
    for layer, option in problem.pins.items():
        assert choice[layer] == option


# --- the table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_agrees_with_brute_force(case):
    best, choice = brute_force(case.problem())
    assert (choice is None) == (case.status is Status.INFEASIBLE)
    if choice is not None:
        assert best == pytest.approx(case.objective, rel=1e-12, abs=0)


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_solver_solves_the_table(case, solver):
    problem = case.problem()
    answer = solve(problem, solver=solver)
    assert answer.stop is Stop.FINISHED
    if case.status is Status.INFEASIBLE:
        assert (answer.status, answer.choice, answer.bound) == (Status.INFEASIBLE, None, np.inf)
    else:
        check(problem, answer, case.objective)


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize(("budget", "quarters", "narrow"), HAWQ_V3)
def test_the_published_plans_of_resnet18_are_found(budget, quarters, narrow, solver):
    answer = solve(resnet18(budget, quarters), solver=solver)
    assert set(np.flatnonzero(answer.choice == 0).tolist()) == narrow


# --- random problems against enumeration --------------------------------------------------------------------


@st.composite
def problems(draw, resources=3):
    """Up to 5 layers of up to 5 options: reals, or integers that tie; sizes to 10^12; gaps, ties, pins."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    count = int(rng.integers(1, resources + 1))
    kind = rng.integers(5)
    if kind == 0:
        use, cost = rng.integers(0, 10, (count, *shape)), rng.random(shape)
    elif kind == 1:
        use, cost = rng.integers(0, 4, (count, *shape)), rng.integers(0, 4, shape).astype(float)
    elif kind == 2:
        use, cost = rng.integers(0, 10**12, (count, *shape)), 10.0 ** rng.uniform(-9, 3, shape)
    elif kind == 3:
        use = rng.integers(0, 10**6, (count, *shape))
        cost = (10**6 - use[0]) / 100
    else:
        use = np.sort(rng.integers(1, 30, (count, *shape)), axis=2) * 48
        cost = -np.sort(-rng.random(shape), axis=1)
    cost[rng.random(shape) < 0.1] = np.inf
    cost[:, -1] = np.where(np.isfinite(cost[:, -1]), cost[:, -1], 1.0)
    ties = [rng.choice(shape[0], size=2, replace=False)] if shape[0] > 1 and rng.random() < 0.3 else []
    pins = {int(rng.integers(shape[0])): shape[1] - 1} if rng.random() < 0.3 else {}
    free = Problem.build(cost, use, None, ties=ties, pins=pins)
    low = free.floors()
    high = np.where(np.isfinite(cost), use, 0).max(axis=2).sum(axis=1)
    return replace(free, limits=rng.integers(low, high + 1))


@steady(300)
@given(problems(resources=1))
def test_one_budget_is_solved_exactly(problem):
    check(problem, solve(problem, solver="exact"), brute_force(problem)[0])


@steady(150)
@given(problems(resources=3))
def test_several_budgets_are_solved_exactly_without_any_extra(problem):
    best, choice = brute_force(problem)
    answer = solve(problem, solver="exact")
    if choice is None:
        assert (answer.status, answer.stop) == (Status.INFEASIBLE, Stop.FINISHED)
    else:
        check(problem, answer, best)


@steady(40)
@given(problems(resources=3))
def test_scipy_and_cbc_agree_with_enumeration(problem):
    best, choice = brute_force(problem)
    for solver in ("scipy", "cbc"):
        answer = solve(problem, solver=solver)
        assert (answer.status is Status.INFEASIBLE) == (choice is None)
        if choice is not None:
            check(problem, answer, best)


# --- larger problems ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [vit, random_sizes])
@pytest.mark.parametrize("bits", [2.25, 3.0, 5.5])
def test_all_solvers_agree_on_fifty_layers(make, bits):
    problem = make(50, 7, bits=bits).problem()
    best = solve(problem, solver="exact")
    for solver in ("scipy", "cbc"):
        check(problem, solve(problem, solver=solver), best.objective)


@pytest.mark.parametrize("seed", range(4))
def test_all_solvers_agree_on_two_budgets(seed):
    problem = two_budgets(24, seed)
    best = solve(problem, solver="exact")
    for solver in ("auto", "scipy", "cbc"):
        check(problem, solve(problem, solver=solver), best.objective)


@pytest.mark.parametrize(("layers", "seed"), [(50, 3), (200, 0), (200, 4), (200, 6)])
def test_two_budgets_on_random_sizes_are_proven_with_little_work(layers, seed):
    problem = two_budgets(layers, seed)
    answer = exact.solve(problem, work=1 << 15)
    check(problem, answer, solve(problem, solver="scipy").objective)


def test_a_hundred_thousand_layers_have_a_certificate():
    problem = random_sizes(100_000, 0).problem()
    answer = solve(problem)
    assert answer.gap < 1e-4
    assert problem.usage(answer.choice)[0] <= problem.limits[0]


# --- laws ---------------------------------------------------------------------------------------------------


@steady(60)
@given(problems(resources=2), st.integers(0, 10**6))
def test_more_budget_never_costs_more(problem, extra):
    small = solve(problem, solver="exact")
    large = solve(replace(problem, limits=problem.limits + extra), solver="exact")
    assert large.objective <= small.objective * (1 + EXACT)


@steady(60)
@given(st.integers(0, 2**32 - 1))
def test_permuting_layers_permutes_the_plan(seed):
    rng = np.random.default_rng(seed)
    case = random_sizes(12, seed)
    order = rng.permutation(12)
    straight = solve(case.problem())
    permuted = solve(Problem.build(case.cost[order], case.resources[order], case.limits))
    # The costs are random reals, so the optimum is unique.
    assert permuted.choice.tolist() == straight.choice[order].tolist()


@steady(60)
@given(st.integers(0, 2**32 - 1), st.floats(1e-200, 1e200))
def test_scaling_the_costs_changes_nothing(seed, factor):
    case = random_sizes(12, seed)
    straight = solve(case.problem())
    scaled = solve(Problem.build(case.cost * factor, case.resources, case.limits))
    assert scaled.choice.tolist() == straight.choice.tolist()
    assert scaled.objective == pytest.approx(straight.objective * factor, rel=1e-12)


@steady(60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10**9))
def test_scaling_sizes_and_limit_changes_nothing(seed, factor):
    case = random_sizes(12, seed)
    straight = solve(case.problem())
    scaled = solve(Problem.build(case.cost, case.resources * factor, case.limits * factor + factor // 2))
    assert scaled.choice.tolist() == straight.choice.tolist()


def test_the_same_problem_gives_the_same_plan():
    problem = two_budgets(20, 1)
    plans = {tuple(solve(problem).choice.tolist()) for _ in range(3)}
    assert len(plans) == 1


# --- adversarial sizes and costs ----------------------------------------------------------------------------


def strongly_correlated(layers, seed):
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 10**6, (layers, 7)), axis=1)
    size = cost + 10**5 * np.arange(7)
    return Case(name="", cost=(cost.max() - cost) * 1e-4, resources=size, limits=int(size.mean() * layers))


def subset_sum(layers, seed):
    size = np.sort(np.random.default_rng(seed).integers(1, 2**48, (layers, 7)), axis=1)
    return Case(
        name="",
        cost=(size.max(axis=1, keepdims=True) - size) / 2**44,
        resources=size,
        limits=int(size.mean() * layers),
    )


def identical(layers, seed):
    case = vit(4, seed)
    kind = np.arange(layers) % 4
    size = case.resources[kind]
    return Case(name="", cost=case.cost[kind], resources=size, limits=int(size[:, 1].sum() * 1.0123))


def wide_sizes(layers, seed):
    rng = np.random.default_rng(seed)
    size = np.sort(rng.integers(1, 2**50, (layers, 7)), axis=1)
    cost = -np.sort(-rng.random((layers, 7)), axis=1)
    return Case(name="", cost=cost, resources=size, limits=int(size.mean() * layers))


@pytest.mark.parametrize("layers", [30, 300])
@pytest.mark.parametrize("make", [strongly_correlated, subset_sum, identical, wide_sizes])
def test_contrived_problems_end_with_a_certified_gap(make, layers):
    problem = make(layers, 1).problem()
    answer = solve(problem, solver="exact", time_limit_s=0.5)
    assert answer.gap < 1e-3
    assert problem.usage(answer.choice)[0] <= problem.limits[0]


def test_alike_layers_are_solved_exactly():
    # All layers of one kind have one cost row: the reference counts how many of each kind take each option.
    rng = np.random.default_rng(5)
    for _ in range(20):
        size, cost = rng.integers(1, 50, (2, 3)).cumsum(axis=1), -np.sort(-rng.random((2, 3)), axis=1)
        kind = np.repeat([0, 1], [9, 8])
        limit = int(rng.integers(size[kind].min(axis=1).sum(), size[kind].max(axis=1).sum()))
        best = np.inf
        counts = [[(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)] for n in (9, 8)]
        for first in counts[0]:
            for second in counts[1]:
                if np.dot(first, size[0]) + np.dot(second, size[1]) <= limit:
                    best = min(best, np.dot(first, cost[0]) + np.dot(second, cost[1]))
        problem = Problem.build(cost[kind], size[kind], limit)
        check(problem, solve(problem, solver="exact"), best)


def test_no_time_at_all_still_gives_an_honest_answer():
    problem = two_budgets(24, 0)
    best = solve(problem, solver="scipy").objective
    for solver in NAMES:
        answer = solve(problem, solver=solver, time_limit_s=0)
        assert answer.bound <= best * (1 + EXACT)
        if answer.choice is not None:
            assert answer.objective >= best * (1 - EXACT)
            assert (answer.status is Status.OPTIMAL) == (answer.gap <= 1e-6)
        else:
            assert answer.status is Status.UNKNOWN
            assert answer.stop is Stop.TIME_LIMIT


def test_a_search_cut_short_keeps_its_bound_below_the_optimum():
    for seed in range(6):
        problem = two_budgets(24, seed)
        best = solve(problem, solver="exact").objective
        short = exact.solve(problem, work=64)
        assert short.bound <= best * (1 + EXACT)
        assert short.objective >= best * (1 - EXACT)


def test_sizes_past_the_arithmetic_of_a_milp_solver_never_break_a_limit():
    problem = Problem.build([[2.0, 1.0], [2.0, 0.5]], [[2**60, 2**61], [2**60, 2**61 + 1]], 2**60 + 2**61)
    check(problem, solve(problem, solver="exact"), 3.0)
    for solver in ("scipy", "cbc"):
        answer = solve(problem, solver=solver)
        assert answer.bound <= 3.0
        assert answer.status is not Status.OPTIMAL or answer.objective == 3.0


# --- the traps that scaling cures ---------------------------------------------------------------------------


def raw_answer(solver, problem, cost):
    """What a MILP solver says of unscaled costs: its choice, and whether it claims to be done."""
    layers, options = cost.shape
    use = problem.resources[0]
    if solver == "scipy":
        one = np.kron(np.eye(layers), np.ones(options))
        result = milp(
            cost.ravel(),
            integrality=np.ones(cost.size),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one, 1, 1),
                LinearConstraint(use.reshape(1, -1), -np.inf, problem.limits[0]),
            ],
        )
        return result.x.reshape(layers, options).argmax(axis=1), result.status == 0
    model = mip.Model(solver_name=mip.CBC)
    model.verbose = 0
    x = [[model.add_var(var_type=mip.BINARY, obj=c) for c in row] for row in cost.tolist()]
    for row in x:
        model.add_constr(mip.xsum(row) == 1)
    model.add_constr(
        mip.xsum(int(use[i, j]) * x[i][j] for i in range(layers) for j in range(options))
        <= int(problem.limits[0])
    )
    status = model.optimize()
    return np.array([[v.x for v in row] for row in x]).argmax(
        axis=1
    ), status == mip.OptimizationStatus.OPTIMAL


@pytest.mark.parametrize("solver", ["scipy", "cbc"])
def test_small_raw_costs_fool_milp_solvers_but_not_ours(solver, capfd):
    fooled = 0
    for seed in range(12):
        case = random_sizes(50, seed)
        cost = case.cost / case.cost.max() * 5e-3
        problem = Problem.build(cost, case.resources, case.limits)
        best = solve(problem, solver="exact")
        choice, claims = raw_answer(solver, problem, cost)
        fooled += claims and problem.objective(choice) > best.objective * (1 + 1e-6)
        check(problem, solve(problem, solver=solver), best.objective)
    # The trap is real, or this test proves nothing.
    assert fooled > 0
