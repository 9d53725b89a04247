"""Reasons and neighbours of plans, each figure against plans judged one by one."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from records import make_profile, pair_profile

import lampq
from lampq.cli import main
from lampq.core.allocating.limits import bit_operations
from lampq.core.measuring.interaction import profile_interaction
from lampq.core.values.budget import Budget
from lampq.core.values.errors import PlanError
from lampq.core.values.option_order import cover_table
from lampq.core.values.recipe import Recipe
from lampq.verbs.report import surroundings
from lampq.verbs.why import why

SMALL = {"kinds": ("patch_embed", "qkv", "fc1", "head"), "widths": (2, 3, 4, 8)}


def chosen(profile, plan):
    return [
        [(o.weight_bits, o.activation_bits) for o in profile.options].index(
            (p.weight_bits, p.activation_bits)
        )
        for p in plan.layers
    ]


def test_a_plan_of_mode_lampq_is_explained_by_the_choices_it_was_made_with(tmp_path):
    profile = make_profile(3, **SMALL)
    recipe = Recipe(gamma=2, beta=3, table="minmax(2.96)", most_swaps=3, weighted=True)
    published = lampq.plan(profile, average_bits=5, mode="lampq")
    made = lampq.plan(profile, average_bits=5, mode="lampq", recipe=recipe)
    assert made.predicted_kl != pytest.approx(published.predicted_kl)
    made.write(tmp_path / "plan.json")
    read = lampq.Plan.read(tmp_path / "plan.json")
    assert read.request.recipe == recipe
    assert read.to_json() == made.to_json()
    for plan in (published, made, read):
        assert why(plan, profile).facts["predicted KL"] == pytest.approx(plan.predicted_kl)
        assert surroundings(plan, profile).here.damage == pytest.approx(plan.predicted_kl)


def test_plans_without_a_recipe_are_of_the_published_one():
    profile = make_profile(3, **SMALL)
    plan = lampq.plan(profile, average_bits=5, mode="lampq")
    data = plan.to_json()
    del data["request"]
    old = lampq.Plan.from_json(data)
    assert old.request is None
    assert why(old, profile).facts["predicted KL"] == pytest.approx(plan.predicted_kl)
    # A later version may know more choices, and leave some out.
    newer = lampq.Plan.from_json(data | {"request": {"recipe": {"gamma": 3.0, "probes": 2.0, "more": 1}}})
    assert newer.request.recipe == Recipe(gamma=3.0, probes=2)
    with pytest.raises(PlanError, match="gamma is 1"):
        lampq.Plan.from_json(data | {"request": {"recipe": {"gamma": 1.0}}})


@pytest.mark.parametrize("mode", ["kl", "superposition"])
@pytest.mark.parametrize("ties", [[], ["blocks.{1,2}.{qkv,fc1}"]])
def test_every_change_is_what_the_changed_plan_would_be(mode, ties):
    profile = make_profile(3, **SMALL)
    plan = lampq.plan(profile, average_bits="3.4", mode=mode, ties=ties)
    interaction = profile_interaction(profile)

    def predict(choice):
        if mode == "superposition":
            return float(interaction.predict(np.array(choice)))
        return sum(profile.kl[i, j] for i, j in enumerate(choice))

    here = chosen(profile, plan)
    groups = [[0], [1, 2], [3]] if ties else [[0], [1], [2], [3]]
    found = why(plan, profile)
    assert found.facts["interactions"] == (mode == "superposition")
    assert found.facts["limits the plan breaks"] == []
    rows = iter(found.rows)
    for layer in range(4):
        group = next(g for g in groups if layer in g)
        for other in (here[layer] - 1, here[layer] + 1):
            if not 0 <= other < 4:
                continue
            name, _, has, instead, damage, size, bits, fits = next(rows)
            changed = list(here)
            for member in group:
                changed[member] = other
            stored = profile.payload_bytes[range(4), changed].sum() - plan.payload_bytes
            average = (profile.sizes @ profile.weight_bits[changed]) / profile.sizes.sum()
            assert name == profile.layers[layer].name
            assert (has, instead) == tuple(f"{SMALL['widths'][j]} bits" for j in (here[layer], other))
            assert damage == pytest.approx(predict(changed) - predict(here), rel=1e-6, abs=1e-12)
            assert size == stored
            assert bits == pytest.approx(average - plan.average_bits)
            assert fits == (average <= 3.4)
    assert next(rows, None) is None


def test_options_of_two_widths_name_every_next_one():
    profile = pair_profile()
    plan = lampq.plan(profile, average_bits=4, mode="kl")
    here = chosen(profile, plan)
    found = why(plan, profile)
    covers = cover_table(profile.options)
    for index, layer in enumerate(profile.layers):
        listed = {row[3] for row in found.rows if row[0] == layer.name}
        w, a = profile.options[here[index]].weight_bits, profile.options[here[index]].activation_bits
        expected = {f"w{v}a{a}" for v in {2: (4,), 4: (2, 8), 8: (4,)}[w]} | {f"w{w}a{12 - a}"}
        assert listed == expected
    assert covers.sum() == 18


def test_a_largest_kl_is_a_limit_too():
    profile = make_profile(**SMALL)
    plan = lampq.plan(profile, max_kl=0.5 * profile.kl[:, 0].sum(), mode="kl")
    for row in why(plan, profile).rows:
        assert row[7] == (plan.predicted_kl + row[4] <= 0.5 * profile.kl[:, 0].sum())
    # Wider keeps the limit, so only narrower can be over it.
    for layer in plan.layers:
        assert not any("saves" in part and "over a limit" in part for part in layer.why.split("; "))
    assert any("over a limit" in layer.why for layer in plan.layers)


def test_plans_carry_sentences_of_what_they_would_gain():
    profile = make_profile(**SMALL)
    plan = lampq.plan(profile, average_bits=3)
    assert all(" bits " in layer.why and " bytes " in layer.why for layer in plan.layers)
    assert any(layer.why.endswith("over a limit") for layer in plan.layers)
    assert [row[3] for row in why(plan).rows] == [layer.why for layer in plan.layers]


def test_a_plan_of_other_widths_or_another_model_is_refused():
    profile = make_profile(**SMALL)
    plan = lampq.plan(profile, average_bits=3)
    with pytest.raises(PlanError, match="no match"):
        why(plan, make_profile(7, **SMALL))
    five = dataclasses.replace(
        plan, layers=(dataclasses.replace(plan.layers[0], weight_bits=5), *plan.layers[1:])
    )
    with pytest.raises(PlanError, match="has no 5 bits for it"):
        why(five, profile)


def test_a_plan_made_by_hand_needs_no_limits():
    profile = make_profile(**SMALL)
    plan = dataclasses.replace(lampq.plan(profile, average_bits=3), budget={}, mode="uniform")
    assert {row[7] for row in why(plan, profile).rows} == {None}


def every_plan(profile, predict, extra=None):
    """(bytes, damage) of all plans, those within `extra` only."""
    for choice in itertools.product(range(len(profile.options)), repeat=len(profile.layers)):
        if extra is None or extra(choice):
            size = profile.rest_bytes + sum(int(profile.payload_bytes[i, j]) for i, j in enumerate(choice))
            yield size, predict(choice)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limited", [False, True])
def test_neighbours_are_the_next_plans_of_brute_force(seed, limited):
    profile = make_profile(seed, **SMALL)
    bops = bit_operations(profile)
    most = int(bops[:, 2].sum())
    budget = Budget(average_bits="3.3", max_bops=most if limited else None)
    plan = lampq.plan(profile, budget=budget, mode="kl")
    within = (lambda choice: sum(bops[i, j] for i, j in enumerate(choice)) <= most) if limited else None
    plans = list(every_plan(profile, lambda c: sum(profile.kl[i, j] for i, j in enumerate(c)), within))
    cheaper = min(damage for size, damage in plans if size < plan.total_bytes)
    assert plan.cheaper.predicted_kl == pytest.approx(cheaper)
    assert plan.cheaper.total_bytes < plan.total_bytes
    dearer = [(size, damage) for size, damage in plans if damage < plan.predicted_kl * (1 - 1e-9)]
    assert (plan.dearer is None) == (not dearer)
    if dearer:
        assert plan.dearer.total_bytes == min(size for size, _ in dearer)
        assert plan.dearer.predicted_kl < plan.predicted_kl


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_with_interactions_are_real_plans(seed):
    profile = make_profile(seed, **SMALL)
    interaction = profile_interaction(profile)
    plan = lampq.plan(profile, average_bits="3.3")
    plans = dict(every_plan(profile, lambda c: float(interaction.predict(np.array(c)))))
    assert (
        plan.cheaper.predicted_kl
        == pytest.approx(min(damage for size, damage in plans.items() if size < plan.total_bytes), rel=1e-6)
        or plan.cheaper.total_bytes in plans
    )
    assert plan.cheaper.total_bytes < plan.total_bytes
    assert plan.dearer.predicted_kl < plan.predicted_kl


def test_the_narrowest_and_the_widest_plan_have_one_neighbour():
    profile = make_profile(**SMALL)
    narrowest = lampq.plan(profile, average_bits=2, mode="kl")
    assert narrowest.cheaper is None
    assert narrowest.dearer.total_bytes > narrowest.total_bytes
    assert lampq.plan(profile, average_bits=8, mode="kl").dearer is None
    assert lampq.plan(make_profile(data=False), average_bits=3).cheaper is None


def test_neighbours_survive_the_file_and_damaged_ones_are_refused(tmp_path):
    plan = lampq.plan(make_profile(**SMALL), average_bits=3, mode="kl")
    plan.write(tmp_path / "plan.json")
    assert lampq.Plan.read(tmp_path / "plan.json").cheaper == plan.cheaper
    data = json.loads((tmp_path / "plan.json").read_text())
    for bad in ({}, 4, {"total_bytes": "x"}):
        data["dearer"] = bad
        with pytest.raises(PlanError):
            lampq.Plan.from_json(data)


def test_the_command_line_tells_why(tmp_path, capfd):
    profile = make_profile()
    profile.write(tmp_path / "profile.json")
    words = ["plan", tmp_path / "profile.json", "--avg-bits", "3", "-o", tmp_path / "plan.json"]
    assert main([str(word) for word in words]) == 0
    assert "next cheaper plan" in capfd.readouterr().err
    words = ["inspect", tmp_path / "plan.json", "--why", "--profile", tmp_path / "profile.json", "--json"]
    assert main([str(word) for word in words]) == 0
    rows = json.loads(capfd.readouterr().out)["layers"]
    assert {"name", "has", "instead", "damage", "bytes", "fits the limits"} <= set(rows[0])
    assert main(["inspect", str(tmp_path / "plan.json"), "--why"]) == 0
    assert "give the profile" in capfd.readouterr().err
    assert main(["inspect", str(tmp_path / "plan.json"), "--profile", str(tmp_path / "profile.json")]) == 2
    assert main(["inspect", str(tmp_path / "profile.json"), "--why"]) == 2
    assert capfd.readouterr().err.count("\n") == 2
