"""Rounds around the quantized plan and LampQ's update, on a network small enough to measure every plan."""

import dataclasses
import itertools

import numpy as np
import pytest
from divergence import kl_divergence
from numpy_model import NumpyModel

from lampq.core.measuring.measure import measure_damage
from lampq.core.measuring.reference import measure_reference
from lampq.core.quantizing.quantizer import quantize
from lampq.core.searching.bench import Bench, within_reach
from lampq.core.searching.lampq_update import update
from lampq.core.searching.recentre import refine
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.gaussian_error import error_table
from lampq.core.values.option import all_options
from lampq.core.values.problem import Problem

WIDTHS = (2, 3, 4)


@pytest.fixture(scope="module")
def case():
    """Model, layers, batch, problem at 2.8 bits, and the measured damage of every plan within it."""
    model = NumpyModel.random(1)
    layers = model.layers()
    batch = np.random.default_rng(2).normal(size=(64, 8)).astype(np.float32)
    sizes = np.array([layer.size for layer in layers])
    cost = measure_damage(model, layers, all_options(WIDTHS), batch).kl
    problem = Problem.build(cost, sizes[:, None] * np.array(WIDTHS), int(2.8 * sizes.sum()))
    plans = [np.array(plan) for plan in itertools.product(range(3), repeat=len(layers))]
    measured = {
        plan.tobytes(): damage(model, layers, batch, plan)
        for plan in plans
        if (problem.usage(plan) <= problem.limits).all()
    }
    return model, layers, batch, problem, measured


def bench(case, *, widths=WIDTHS, problem=None):
    model, layers, batch, whole, _ = case
    return Bench(
        model, layers, widths, whole if problem is None else problem, measure_reference(model, batch)
    )


def damage(model, layers, batch, plan):
    weights = {
        layer.name: quantize(model.weight(layer.name), WIDTHS[option]).dequantized()
        for layer, option in zip(layers, plan, strict=True)
    }
    return float(kl_divergence(model.run(batch), model.with_weights(weights).run(batch)).mean())


def test_rounds_only_improve_and_end_near_the_best_plan_of_all(case):
    _, _, _, _, measured = case
    uniform, start = np.zeros(5, dtype=np.int64), np.array([2, 0, 0, 0, 1])
    result = refine(bench(case), [uniform, start], rounds=4, reach=2)
    assert result.kl == pytest.approx(measured[result.choice.tobytes()], rel=1e-5)
    assert result.kl <= min(measured[uniform.tobytes()], measured[start.tobytes()])
    ranks = sorted(measured.values())
    assert result.kl <= ranks[3] * (1 + 1e-6)
    accepted = [entry.measured for entry in result.rounds if entry.accepted]
    assert accepted == sorted(accepted, reverse=True)
    assert accepted[-1] == result.kl
    assert [entry.number for entry in result.rounds] == list(range(len(result.rounds)))
    assert result.rounds[1].accepted
    assert result.rounds[1].predicted == pytest.approx(result.rounds[1].measured, rel=0.5)


def test_around_a_plan_single_moves_are_predicted_almost_exactly(case):
    model, layers, batch, _, measured = case
    plan = np.array([1, 0, 1, 0, 2])
    interaction = bench(case).around(plan, within_reach(3, 1)).interaction
    assert interaction.constant == pytest.approx(measured[plan.tobytes()], rel=1e-5)
    assert interaction.measured[3].tolist() == [True, True, False]
    for layer in range(5):
        moved = plan.copy()
        moved[layer] = 1 if plan[layer] == 0 else plan[layer] - 1
        true = damage(model, layers, batch, moved) - interaction.constant
        assert float(interaction.predict(moved)) - interaction.constant == pytest.approx(
            true, abs=0.1 * interaction.constant
        )


def test_around_the_float_model_it_is_the_profile_measured_piece_by_piece(case):
    model, layers, batch, _, _ = case
    found = bench(case).around(None)
    profiled = measure_damage(model, layers, all_options(WIDTHS), batch)
    np.testing.assert_allclose(found.kl, profiled.kl, rtol=1e-6)
    np.testing.assert_allclose(found.interaction.gram, profiled.gram, rtol=1e-6, atol=1e-12)


def test_pins_and_ties_hold_and_pinned_layers_are_not_measured(case):
    _, _, _, problem, _ = case
    held = dataclasses.replace(problem, pins={4: 1}, ties=((0, 1),))
    start = np.array([0, 0, 0, 0, 1])
    result = refine(bench(case, problem=held), [start], rounds=3)
    assert result.choice[4] == 1
    assert result.choice[0] == result.choice[1]
    interaction = bench(case, problem=held).around(start, within_reach(3, 1)).interaction
    assert interaction.measured[4].tolist() == [False, True, False]


def test_no_rounds_measure_the_plans_alone(case):
    _, _, _, _, measured = case
    plans = [np.array([0, 1, 0, 1, 0]), np.array([1, 0, 1, 0, 1])]
    result = refine(bench(case), plans, rounds=0)
    assert result.kl == pytest.approx(min(measured[plan.tobytes()] for plan in plans), rel=1e-5)
    assert np.isnan(result.predicted)
    assert len(result.rounds) == 1


def test_plans_that_cannot_be_measured_are_refused(case):
    _, _, _, _, _ = case
    with pytest.raises(RecordError, match="exceeds the limit of resource 0"):
        refine(bench(case), [np.full(5, 2)])
    with pytest.raises(RecordError, match="no choice of 5 options"):
        refine(bench(case), [np.full(5, 3)])
    with pytest.raises(BudgetError, match="no plan"):
        refine(bench(case), [])
    with pytest.raises(RecordError, match="at least"):
        refine(bench(case), [], reach=0)
    with pytest.raises(RecordError, match="does not fit"):
        refine(bench(case, widths=(2, 3)), [np.zeros(5)])


def relative_errors(model, layers, batch, plan):
    """Output error of every layer and width with the input of the quantized network, layer by layer."""
    weights = {
        layer.name: quantize(model.weight(layer.name), WIDTHS[option]).dequantized()
        for layer, option in zip(layers, plan, strict=True)
    }
    clean = {name: x for name, x, _ in model.taps(batch)}
    given = {name: x for name, x, _ in model.with_weights(weights).taps(batch)}
    return np.array(
        [
            [
                np.square(given[n] @ quantize(w, b).dequantized().T - clean[n] @ w.T).sum()
                / np.square(clean[n] @ w.T).sum()
                for b in WIDTHS
            ]
            for n, w in ((layer.name, model.weight(layer.name)) for layer in layers)
        ]
    )


@pytest.mark.parametrize("table", ["measured", "paper", "mse", "minmax(2.96)"])
def test_lampqs_update_swaps_the_pair_that_its_rule_names(case, table):
    model, layers, batch, problem, measured = case
    plan = np.array([1, 1, 1, 0, 1])
    errors = relative_errors(model, layers, batch, plan)
    if table != "measured":
        ratio = error_table(table)[1:4]
        errors = errors[np.arange(5), plan][:, None] * ratio / ratio[plan][:, None]
    pairs = []
    for up, down in itertools.permutations(range(5), 2):
        moved = plan + np.eye(5, dtype=int)[up] - np.eye(5, dtype=int)[down]
        if (moved >= 0).all() and (moved <= 2).all() and (problem.usage(moved) <= problem.limits).all():
            gain = errors[up, plan[up]] - errors[up, plan[up] + 1]
            loss = errors[down, plan[down] - 1] - errors[down, plan[down]]
            pairs.append((gain - loss, gain, loss, up, down))
    _, gain, loss, up, down = max(pairs)
    result = update(bench(case), plan, table=table)
    first = result.swaps[0]
    assert (first.raised, first.lowered) == (up, down)
    assert first.gain == pytest.approx(gain, rel=1e-4)
    assert first.degradation == pytest.approx(loss, rel=1e-4)
    assert result.kl == pytest.approx(measured[result.choice.tobytes()], rel=1e-5)
    assert result.kl <= measured[plan.tobytes()] * (1 + 1e-6)
    assert [swap.kept for swap in result.swaps[:-1]] == [True] * (len(result.swaps) - 1)


def test_lampqs_update_leaves_pinned_layers_alone_and_weighs_by_importance(case):
    _, _, _, problem, _ = case
    plan = np.array([1, 1, 1, 0, 1])
    held = dataclasses.replace(problem, pins={0: 1, 4: 1}, ties=((1, 2),))
    assert update(bench(case, problem=held), plan).swaps == ()
    free = update(bench(case), plan, importance=np.array([1, 1, 1e6, 1, 1]))
    assert free.swaps[0].raised == 2
    none = update(bench(case), plan, most_swaps=0)
    assert none.choice.tolist() == plan.tolist()
    with pytest.raises(RecordError, match="single bits"):
        update(bench(case, widths=(2, 4, 8)), plan)
    with pytest.raises(RecordError, match="none of paper"):
        update(bench(case), plan, table="guess")
