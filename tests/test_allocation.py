"""From a profile to a plan, with brute force as the oracle."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import make_profile

import lampq
from lampq.core.allocating.allocation import build_problem, uniform_choice
from lampq.core.allocating.allowed import allowed_options
from lampq.core.measuring.interaction import profile_interaction
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError, LampqError, PlanError, RecordError
from lampq.core.values.plan import Plan

SMALL = {"kinds": ("patch_embed", "qkv", "fc1", "head"), "widths": (2, 3, 4, 8)}


def brute_force(profile, cost, limit, resource):
    """Least damage over all choices within the limit."""
    best = np.inf
    for choice in itertools.product(range(cost.shape[1]), repeat=len(cost)):
        if sum(resource[i, j] for i, j in enumerate(choice)) <= limit:
            best = min(best, sum(cost[i, j] for i, j in enumerate(choice)))
    return best


@given(
    st.integers(0, 1000), st.sampled_from(["2", "2.5", "3", "3.7", "8"]), st.sampled_from(["kl", "fisher"])
)
@settings(max_examples=25, deadline=None)
def test_a_plan_is_optimal_and_within_its_budget(seed, bits, mode):
    profile = make_profile(seed, **SMALL)
    plan = lampq.plan(profile, average_bits=bits, mode=mode)
    assert plan.average_bits <= float(bits)
    cost = profile.kl if mode == "kl" else lampq.core.allocating.scores.fisher.fisher_scores(profile)
    resource = profile.sizes[:, None] * profile.weight_bits
    limit = float(bits) * profile.sizes.sum()
    assert plan.predicted_kl == pytest.approx(brute_force(profile, cost, limit, resource))
    assert plan.bound <= plan.predicted_kl * (1 + 1e-9)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_size_budget_counts_every_byte(share):
    profile = make_profile(**SMALL)
    low, high = profile.payload_bytes.min(axis=1).sum(), profile.payload_bytes.max(axis=1).sum()
    size = int(profile.rest_bytes + low + share * (high - low))
    plan = lampq.plan(profile, size_bytes=size, mode="kl")
    assert plan.total_bytes <= size
    expected = brute_force(profile, profile.kl, size - profile.rest_bytes, profile.payload_bytes)
    assert plan.predicted_kl == pytest.approx(expected)


def test_both_budgets_hold_together():
    profile = make_profile(**SMALL)
    size = profile.rest_bytes + int(profile.payload_bytes[:, 1].sum())
    plan = lampq.plan(profile, average_bits=3.4, size_bytes=size)
    assert plan.average_bits <= 3.4
    assert plan.total_bytes <= size


def test_a_largest_kl_gives_the_smallest_plan_that_keeps_it():
    profile = make_profile(**SMALL)
    plan = lampq.plan(profile, max_kl=0.4 * profile.kl[:, 0].sum(), mode="kl")
    assert plan.predicted_kl <= 0.4 * profile.kl[:, 0].sum()
    smaller = [
        choice
        for choice in itertools.product(range(4), repeat=4)
        if sum(profile.payload_bytes[i, j] for i, j in enumerate(choice)) < plan.payload_bytes
        and sum(profile.kl[i, j] for i, j in enumerate(choice)) <= 0.4 * profile.kl[:, 0].sum()
    ]
    assert smaller == []


def test_pins_and_ties_hold():
    profile = make_profile()
    plan = lampq.plan(profile, average_bits=4, pins=["head=8", "blocks.1.*=5"], ties=["blocks.{2,6}.proj"])
    widths = [layer.weight_bits for layer in plan.layers]
    assert widths[9] == 8
    assert widths[1] == 5
    assert widths[2] == widths[6]
    allowed = allowed_options(profile, pins=["*=2", "head=8"])
    assert [np.flatnonzero(row).tolist() for row in allowed] == [[0]] * 9 + [[6]]


def test_mode_lampq_pins_what_the_paper_leaves_out_unless_told_otherwise():
    profile = make_profile()
    widths = [layer.weight_bits for layer in lampq.plan(profile, average_bits=5, mode="lampq").layers]
    assert (widths[0], widths[-1]) == (8, 8)
    widths = [
        layer.weight_bits
        for layer in lampq.plan(profile, average_bits=5, mode="lampq", pins=["head=4"]).layers
    ]
    assert widths[-1] == 4


def test_the_uniform_plan_is_the_widest_that_fits():
    profile = make_profile()
    problem = build_problem(profile, profile.kl, Budget(average_bits=4.9))
    assert profile.weight_bits[uniform_choice(profile, problem)].tolist() == [4] * 10
    problem = build_problem(profile, profile.kl, Budget(average_bits=5), pins=["head=8"])
    assert set(profile.weight_bits[uniform_choice(profile, problem)[:-1]].tolist()) == {4}


def test_options_a_format_cannot_store_are_never_taken():

    profile = make_profile(widths=(2, 4, 8))
    payload = profile.payload_bytes.copy()
    payload[3, 0] = -1
    profile = profile.with_tables(payload_bytes=payload)
    plan = lampq.plan(profile, average_bits=2.7)
    assert plan.layers[3].weight_bits >= 4
    assert plan.average_bits <= 2.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"average_bits": 1.9}, "floor of 2.0000"),
        ({"average_bits": "2.01", "pins": ["*=3"]}, "floor of 3.0000"),
        ({"size_bytes": 10}, "floor of"),
        ({"average_bits": 0}, "above 0"),
        ({"average_bits": "many"}, "number"),
        ({}, "no budget"),
        ({"max_kl": -1}, "above 0"),
        ({"max_kl": 1e-30, "mode": "kl"}, "widest plan"),
        ({"average_bits": 3, "pins": ["nothing=4"]}, "matches no layer"),
        ({"average_bits": 3, "pins": ["head=1"]}, "profile 1 bits"),
        ({"average_bits": 3, "ties": ["head"]}, "joins no two"),
        ({"average_bits": 3, "mode": "magic"}, "magic"),
        ({"average_bits": 3, "solver": "magic"}, "magic"),
        (
            {"average_bits": 6, "pins": ["blocks.2.*=4", "blocks.6.*=5"], "ties": ["blocks.{2,6}.proj"]},
            "no option in common",
        ),
    ],
)
def test_impossible_requests_name_what_and_why(arguments, message):
    with pytest.raises(LampqError, match=message) as caught:
        lampq.plan(make_profile(), **arguments)
    assert "\n" not in str(caught.value)


def test_a_profile_without_data_still_gives_a_plan_and_says_what_it_is_worth():
    plan = lampq.plan(make_profile(data=False), average_bits=3)
    assert plan.mode == "error"
    assert plan.predicted_kl is None
    assert any("without data" in note for note in plan.notes)
    with pytest.raises(BudgetError, match="--data"):
        lampq.plan(make_profile(data=False), max_kl=0.1)


def test_a_plan_survives_its_file(tmp_path):
    plan = lampq.plan(make_profile(), average_bits=3.3, mode="kl")
    plan.write(tmp_path / "plan.json")
    back = Plan.read(tmp_path / "plan.json")
    assert back.to_json() == plan.to_json()
    assert back.gap is not None
    assert back.gap < 1e-9


def test_damaged_plans_are_refused_in_one_line(tmp_path):
    lampq.plan(make_profile(kinds=("fc1", "fc2")), average_bits=3.3).write(tmp_path / "plan.json")
    good = (tmp_path / "plan.json").read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(400):
        bad = bytearray(good)
        if trial % 3 == 0:
            bad = bad[: rng.integers(len(bad))]
        else:
            bad[rng.integers(len(bad))] = rng.integers(256)
        (tmp_path / "plan.json").write_bytes(bytes(bad))
        try:
            Plan.read(tmp_path / "plan.json")
        except PlanError as err:
            assert "\n" not in str(err)
            assert "plan.json" in str(err)


def test_totals_that_contradict_the_layers_are_refused(tmp_path):
    data = lampq.plan(make_profile(), average_bits=3.3).to_json()
    data["payload_bytes"] += 1
    with pytest.raises(PlanError, match="add up"):
        Plan.from_json(data)


def test_every_point_of_a_sweep_is_better_than_the_cheaper_ones():
    profile = make_profile()
    points = lampq.sweep(profile, mode="kl")
    sizes, damages = [p.average_bits for p in points], [p.predicted_kl for p in points]
    assert sizes == sorted(sizes)
    assert damages == sorted(damages, reverse=True)
    assert points[0].widths == (2,) * 10
    assert sum(point.knee for point in points) == 1
    for point in points[:: len(points) // 7]:
        assert lampq.plan(
            profile, average_bits=point.average_bits + 1e-9, mode="kl"
        ).predicted_kl == pytest.approx(point.predicted_kl)


def test_a_profile_that_lacks_what_a_mode_needs_is_refused():
    with pytest.raises(RecordError, match="--data"):
        lampq.plan(make_profile(data=False), average_bits=3, mode="kl")


@given(st.integers(0, 1000), st.sampled_from(["2.2", "3", "4.1"]))
@settings(max_examples=10, deadline=None)
def test_plans_with_interactions_are_optimal_on_small_models(seed, bits):
    profile = make_profile(seed, **SMALL)
    plan = lampq.plan(profile, average_bits=bits)
    assert plan.mode == "superposition"
    interaction = profile_interaction(profile)
    limit = float(bits) * profile.sizes.sum()
    resource = profile.sizes[:, None] * profile.weight_bits
    best = min(
        float(interaction.predict(np.array(choice)))
        for choice in itertools.product(range(4), repeat=4)
        if sum(resource[i, j] for i, j in enumerate(choice)) <= limit
    )
    assert plan.predicted_kl == pytest.approx(best, rel=1e-6)
    assert plan.bound <= best * (1 + 1e-6)
    assert plan.average_bits <= float(bits)


def test_a_largest_kl_is_kept_with_interactions_too():
    profile = make_profile(**SMALL)
    worst = lampq.plan(profile, average_bits=2).predicted_kl
    plan = lampq.plan(profile, max_kl=worst / 4)
    assert plan.predicted_kl <= worst / 4
    assert plan.average_bits < 8


def test_measuring_on_other_data_than_the_profile_is_refused():
    from lampq.demo_data import MODEL_PATH, calibration
    from lampq.verbs.best_plan import best_plan

    model, images = lampq.read(MODEL_PATH), calibration()[:16]
    profile = lampq.profile(model, images, bits=(2, 4), fisher_draws=0)
    assert best_plan(model, profile, images, Budget(average_bits=3), rounds=0).measured_kl > 0
    with pytest.raises(RecordError, match="another order"):
        best_plan(model, profile, images[::-1], Budget(average_bits=3))
