"""Search, bound and explanation of plans with interactions, against exhaustion."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.optimize
from class_outputs import logits_interaction
from hypothesis import given, settings
from hypothesis import strategies as st

from lampq.core.measuring.interaction import Interaction
from lampq.core.searching import relaxation
from lampq.core.searching.landscape import Landscape
from lampq.core.searching.relaxation import lower_bound
from lampq.core.searching.search import search
from lampq.core.searching.superposition import allocate, explain
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Status, Stop


def interaction_of(seed, layers=5, options=4, rows=9, linear=0.0):
    """Options that halve their difference with every bit, with parts that all layers share, so pairs matter."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(3, rows)), rng.normal(size=(layers, rows))
    base = rng.normal(size=(layers, 3)) @ common + own
    factor = base[:, None] * 0.5 ** np.arange(options)[:, None] * rng.uniform(0.3, 3, (layers, 1, 1))
    factor = (factor + 0.3 * rng.normal(size=factor.shape) * 0.5 ** np.arange(options)[:, None]).reshape(
        -1, rows
    )
    return Interaction(
        gram=(factor @ factor.T).reshape(layers, options, layers, options),
        linear=linear * rng.normal(size=(layers, options)),
        constant=0.0,
        measured=np.ones((layers, options), dtype=bool),
    )


def problem_of(interaction, seed, resources=1, tightness=0.5, **kwargs):
    rng = np.random.default_rng(seed + 1)
    layers, options = interaction.linear.shape
    use = rng.integers(1, 30, (resources, layers, 1)) * np.arange(2, 2 + options)
    floor, ceiling = use[:, :, 0].sum(1), use[:, :, -1].sum(1)
    limits = (floor + tightness * (ceiling - floor)).astype(int)
    return Problem.build(interaction.own, use, limits, **kwargs)


def exhaustive(interaction, problem):
    """All plans that keep everything, best first, and their objectives."""
    layers, options = problem.cost.shape
    plans = np.array(list(itertools.product(range(options), repeat=layers)))
    every = np.arange(layers)
    good = np.isfinite(problem.cost)[every, plans].all(1) & interaction.measured[every, plans].all(1)
    for use, limit in zip(problem.resources, problem.limits, strict=True):
        good &= use[every, plans].sum(1) <= limit
    for tie in problem.ties:
        good &= (plans[:, tie] == plans[:, tie[:1]]).all(1)
    for layer, option in problem.pins.items():
        good &= plans[:, layer] == option
    plans = plans[good]
    values = interaction.predict(plans)
    order = np.argsort(values, kind="stable")
    return plans[order], values[order]


@given(st.integers(0, 10_000), st.integers(1, 3), st.floats(0.05, 0.95), st.sampled_from([0.0, 0.5]))
@settings(max_examples=25, deadline=None)
def test_the_search_finds_the_optimum_of_small_problems(seed, resources, tightness, linear):
    interaction = interaction_of(seed, linear=linear)
    problem = problem_of(interaction, seed, resources, tightness)
    _plans, values = exhaustive(interaction, problem)
    found = search(interaction, problem, keep=3)
    assert found.objectives[0] == pytest.approx(values[0], rel=1e-9)
    assert (problem.usage(found.choices[0]) <= problem.limits).all()
    assert (np.diff(found.objectives) >= 0).all()
    assert len(np.unique(found.choices, axis=0)) == len(found.choices)
    assert found.finished


@given(st.integers(0, 10_000), st.integers(1, 3), st.floats(0.05, 0.95), st.sampled_from([0.0, 0.5]))
@settings(max_examples=25, deadline=None)
def test_the_bound_is_below_every_plan_and_keeps_better_options_open(seed, resources, tightness, linear):
    interaction = interaction_of(seed, linear=linear)
    problem = problem_of(interaction, seed, resources, tightness)
    plans, values = exhaustive(interaction, problem)
    for known in (0, len(plans) // 3):
        bound = lower_bound(interaction, problem, plans[known])
        assert bound.value <= values[0] + 1e-12 * abs(values[known])
        better = plans[values < values[known] - 1e-9]
        assert bound.open[np.arange(plans.shape[1]), better].all()
        hasty = lower_bound(interaction, problem, plans[known], time_limit_s=0)
        assert hasty.value <= values[0] + 1e-12 * abs(values[known])


def test_the_bound_is_at_least_that_of_the_convex_relaxation():
    gaps = []
    for seed in range(6):
        interaction = interaction_of(seed)
        problem = problem_of(interaction, seed, tightness=0.4)
        plans, values = exhaustive(interaction, problem)
        flat = problem.resources[0].ravel() / problem.limits[0]
        relaxed = scipy.optimize.minimize(
            lambda x, q=interaction.matrix: x @ q @ x,
            np.full(20, 0.25),
            jac=lambda x, q=interaction.matrix: 2 * q @ x,
            bounds=[(0, 1)] * 20,
            constraints=[
                {"type": "eq", "fun": lambda x: x.reshape(5, 4).sum(1) - 1},
                {"type": "ineq", "fun": lambda x, w=flat: 1 - w @ x},
            ],
            method="SLSQP",
        )
        bound = lower_bound(interaction, problem, plans[0]).value
        assert bound > relaxed.fun - 1e-6 * values[0]
        gaps.append(((values[0] - bound) / values[0], (values[0] - relaxed.fun) / values[0]))
    ours, plain = np.mean(gaps, axis=0)
    assert ours < 0.9 * plain


def test_a_relaxation_too_large_for_memory_is_left_out(monkeypatch):
    interaction = interaction_of(1)
    problem = problem_of(interaction, 1, tightness=0.4)
    monkeypatch.setattr(relaxation, "MOST_BYTES", interaction.gram.nbytes)
    best = allocate(interaction, problem)
    assert best.solution.bound == -np.inf
    assert best.solution.status is Status.FEASIBLE
    monkeypatch.undo()
    np.testing.assert_array_equal(allocate(interaction, problem).solution.choice, best.solution.choice)


def test_without_interactions_the_bound_is_the_linear_relaxation():
    rng = np.random.default_rng(0)
    factor = np.zeros((4 * 3, 4))
    factor[np.arange(12), np.arange(12) // 3] = (rng.uniform(1, 2, (4, 1)) * [2, 1, 0.3]).ravel()
    interaction = Interaction(
        gram=(factor @ factor.T).reshape(4, 3, 4, 3),
        linear=np.zeros((4, 3)),
        constant=0.0,
        measured=np.ones((4, 3), dtype=bool),
    )
    # The limit lies where the greedy solution of the relaxation is integral.
    problem = Problem.build(interaction.own, np.tile([2, 3, 4], (4, 1)), 12)
    plans, values = exhaustive(interaction, problem)
    assert lower_bound(interaction, problem, plans[0]).value == pytest.approx(values[0], rel=1e-4)


def test_a_limit_that_does_not_bind_leaves_no_gap_for_one_layer():
    interaction = interaction_of(3, layers=1)
    problem = problem_of(interaction, 3, tightness=1.0)
    _plans, values = exhaustive(interaction, problem)
    allocation = allocate(interaction, problem)
    assert allocation.solution.objective == pytest.approx(values[0])
    assert allocation.solution.gap < 1e-5


def test_one_plan_left_needs_no_relaxation():
    interaction = interaction_of(4)
    problem = problem_of(interaction, 4, tightness=0.0)
    solution = allocate(interaction, problem).solution
    assert solution.choice.tolist() == [0] * 5
    pinned = dataclasses.replace(problem, pins=dict.fromkeys(range(5), 0))
    assert allocate(interaction, pinned).solution.status is Status.OPTIMAL


@given(st.integers(0, 10_000), st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_ties_pins_and_forbidden_options_hold_and_the_rest_is_optimal(seed, resources):
    rng = np.random.default_rng(seed)
    interaction = interaction_of(seed, linear=0.2)
    cost = interaction.own.copy()
    cost[rng.random(cost.shape) < 0.15] = np.inf
    cost[:, 1] = 1.0
    tie = tuple(rng.choice(5, 2, replace=False).tolist())
    pin = {int(rng.integers(5)): 1}
    base = problem_of(interaction, seed, resources, 0.6)
    problem = Problem.build(cost, base.resources, base.limits, ties=[tie], pins=pin)
    plans, values = exhaustive(interaction, problem)
    if not len(plans):
        return
    allocation = allocate(interaction, problem, keep=4)
    assert allocation.solution.objective == pytest.approx(values[0], rel=1e-9)
    assert allocation.solution.bound <= values[0] * (1 + 1e-9)
    known = {plan.tobytes() for plan in plans}
    assert all(choice.tobytes() in known for choice in allocation.choices)


def test_unmeasured_options_are_never_taken():
    interaction = interaction_of(5)
    measured = interaction.measured.copy()
    measured[:, 2] = False
    interaction = dataclasses.replace(interaction, measured=measured)
    problem = problem_of(interaction, 5)
    _plans, values = exhaustive(interaction, problem)
    allocation = allocate(interaction, problem)
    assert allocation.solution.objective == pytest.approx(values[0])
    assert not (allocation.solution.choice == 2).any()
    measured = measured.copy()
    measured[3] = False
    with pytest.raises(BudgetError, match="layer 3"):
        allocate(dataclasses.replace(interaction, measured=measured), problem)
    with pytest.raises(RecordError, match="not allowed or not measured"):
        allocate(interaction, problem, [np.full(5, 2)])


def test_limits_that_clash_leave_the_answer_unknown():
    interaction = interaction_of(6)
    use = np.stack([np.tile([1, 2, 3, 4], (5, 1)), np.tile([4, 3, 2, 1], (5, 1))])
    solution = allocate(interaction, Problem.build(interaction.own, use, [12, 12])).solution
    assert solution.status is Status.UNKNOWN
    assert solution.choice is None


def test_no_move_of_one_or_two_layers_improves_what_descends():
    interaction = interaction_of(7, layers=8)
    problem = problem_of(interaction, 7, 2)
    ground = Landscape(interaction, problem)
    choice = ground.descend(np.zeros(8, dtype=np.int64))
    value = float(interaction.predict(choice))
    for first, second in itertools.combinations(range(8), 2):
        for options in itertools.product(range(4), repeat=2):
            other = choice.copy()
            other[[first, second]] = options
            if ground.fits(other):
                assert float(interaction.predict(other)) >= value - 1e-12


def test_the_search_is_never_worse_than_its_starts_and_repeats_itself():
    interaction = interaction_of(8, layers=30, options=5, rows=40)
    problem = problem_of(interaction, 8)
    start = np.zeros(30, dtype=np.int64)
    one, two = (search(interaction, problem, [start], seed=3, keep=5) for _ in range(2))
    np.testing.assert_array_equal(one.choices, two.choices)
    assert one.objectives[0] <= float(interaction.predict(start))
    cut = search(interaction, problem, [start], time_limit_s=0)
    assert not cut.finished
    assert cut.objectives[0] <= float(interaction.predict(start))


def test_scaled_damage_and_reordered_layers_give_the_same_plan():
    interaction = interaction_of(9)
    problem = problem_of(interaction, 9)
    choice = allocate(interaction, problem).solution.choice
    scaled = dataclasses.replace(interaction, gram=interaction.gram * 1e-6)
    rescaled = Problem.build(scaled.own, problem.resources, problem.limits)
    np.testing.assert_array_equal(allocate(scaled, rescaled).solution.choice, choice)
    order = np.array([3, 1, 4, 0, 2])
    moved = dataclasses.replace(interaction, gram=interaction.gram[order][:, :, order])
    reordered = Problem.build(moved.own, problem.resources[:, order], problem.limits)
    np.testing.assert_array_equal(allocate(moved, reordered).solution.choice, choice[order])


def test_more_budget_never_costs_more():
    interaction = interaction_of(10)
    found = [
        allocate(interaction, problem_of(interaction, 10, tightness=t)).solution.objective
        for t in np.linspace(0, 1, 9)
    ]
    assert (np.diff(found) <= 1e-12).all()


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_an_explanation_is_the_difference_of_two_predictions(seed):
    interaction = interaction_of(seed, linear=0.3)
    problem = dataclasses.replace(problem_of(interaction, seed, 2, 0.7), ties=((1, 3),))
    choice = allocate(interaction, problem).solution.choice
    why = explain(interaction, problem, choice)
    before = float(interaction.predict(choice))
    for layer, option in np.ndindex(interaction.linear.shape):
        moved = choice.copy()
        moved[[1, 3] if layer in (1, 3) else layer] = option
        assert why.damage[layer, option] == pytest.approx(
            float(interaction.predict(moved)) - before, abs=1e-9
        )
        use = problem.usage(moved)
        np.testing.assert_array_equal(why.use[:, layer, option], use - problem.usage(choice))
        assert why.fits[layer, option] == (use <= problem.limits).all()
    assert why.alone.sum() + why.shared.sum() == pytest.approx(before)


def test_an_explanation_refuses_a_plan_of_another_problem():
    interaction = interaction_of(11)
    problem = dataclasses.replace(problem_of(interaction, 11), ties=((0, 1),))
    with pytest.raises(RecordError, match="breaks a tie"):
        explain(interaction, problem, np.array([0, 1, 0, 0, 0]))
    with pytest.raises(RecordError, match="does not fit"):
        allocate(interaction_of(11, layers=4), problem)


def test_a_solution_says_why_it_stopped_and_how_good_it_is():
    target = np.random.default_rng(0).normal(size=(6, 4))
    delta = np.random.default_rng(1).normal(size=(5, 4, 6, 4)) * 0.5 ** np.arange(4)[:, None, None]
    interaction = logits_interaction(target, delta)
    allocation = allocate(interaction, problem_of(interaction, 0))
    assert allocation.solution.stop is Stop.FINISHED
    assert 0 <= allocation.solution.gap < 0.5
    assert allocation.solution.solver == "superposition"
    unbounded = allocate(interaction, problem_of(interaction, 0), bound_limit_s=0)
    assert unbounded.solution.bound == -np.inf
