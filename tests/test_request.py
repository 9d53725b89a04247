"""Requests: checked at birth, built from choices by name, kept in plans, and read back from old ones."""

import dataclasses
import json

import pytest
from records import make_profile

import lampq
from lampq.cli import main
from lampq.core.planning.asked import asked, without_largest_kl
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError, LampqError, RecordError
from lampq.core.values.plan import Plan
from lampq.core.values.recipe import Recipe
from lampq.core.values.request import Request
from lampq.verbs.why import why

SMALL = {"kinds": ("patch_embed", "qkv", "fc1", "head"), "widths": (2, 3, 4, 8)}


def test_choices_are_fields_of_the_request_or_of_its_budget():
    request = Request.of(average_bits="3.5", at_most=["2@8"], mode="kl", pins=["head=8"])
    assert request.budget == Budget(average_bits="3.5", at_most=("2@8",))
    assert (request.mode, request.pins, request.seed) == ("kl", ("head=8",), 0)


def test_a_budget_alone_is_a_request_and_limits_join_it():
    budget = Budget(max_bops=10)
    assert Request.of(budget).budget is budget
    assert Request.of(budget, size_bytes=5).budget == Budget(max_bops=10, size_bytes=5)
    assert Request.of(Request(budget=budget, seed=2), mode="kl") == Request(budget=budget, seed=2, mode="kl")


@pytest.mark.parametrize(
    ("begin", "choices", "message"),
    [
        (Budget(average_bits=3), {"average_bits": 4}, "average_bits is given twice"),
        (Budget(average_bits=3), {"budget": Budget(average_bits=4)}, "the budget is given twice"),
        (None, {"mode": 3}, "mode 3 is neither a score nor the name of one"),
        (None, {"seed": -1}, "seed -1, rounds 3: must be at least 0"),
        (None, {"time_limit_s": float("nan")}, "time limit nan"),
        (None, {"pins": "head=8"}, r"give a list of texts, such as \['head=8'\]"),
        (None, {"pins": ["head"]}, "write PATTERN=BITS"),
        (None, {"average_bits": 0}, "must be above 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(begin, choices, message):
    with pytest.raises(LampqError, match=message):
        Request.of(begin, **choices)


@pytest.mark.parametrize("verb", [lampq.plan, lampq.sweep])
def test_unknown_choices_are_refused_in_one_line_that_lists_the_known(verb):
    with pytest.raises(RecordError, match="'avg_bits' is no choice of a plan") as caught:
        verb(make_profile(**SMALL), avg_bits=3)
    assert "\n" not in str(caught.value)
    assert {"average_bits", "max_kl", "pins", "recipe"} <= set(str(caught.value).replace(",", "").split())


def test_a_plan_needs_a_limit_and_a_sweep_does_not():
    with pytest.raises(BudgetError, match="no budget: give average bits"):
        lampq.plan(make_profile(**SMALL), mode="kl")
    assert lampq.sweep(make_profile(**SMALL), mode="kl")


def test_the_request_is_kept_in_the_plan_and_its_file(tmp_path):
    recipe = Recipe(gamma=3.0, probes=1)
    plan = lampq.plan(
        make_profile(**SMALL), average_bits="5.5", mode="lampq", pins=["qkv=3"], seed=5, recipe=recipe
    )
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json").request == plan.request
    stored = json.loads((tmp_path / "plan.json").read_text())["request"]
    assert stored["recipe"]["gamma"] == 3.0
    assert (stored["pins"], stored["seed"], stored["mode"]) == (["qkv=3"], 5, "lampq")
    assert plan.request == Request(mode="lampq", pins=("qkv=3",), seed=5, recipe=recipe)
    assert asked(plan) == dataclasses.replace(plan.request, budget=Budget(average_bits=5.5))


def test_plans_of_before_requests_were_kept_are_read():
    plan = lampq.plan(make_profile(), average_bits=6, mode="lampq", ties=["blocks.{1,5}.qkv"])
    data = plan.to_json()
    del data["request"]
    old = Plan.from_json(data)
    assert old.request is None
    assert asked(old).ties == ("blocks.{1,5}.qkv",)
    assert (asked(old).mode, asked(old).recipe) == ("lampq", Recipe())
    assert asked(dataclasses.replace(old, mode="uniform", budget={})) == Request()


@pytest.mark.parametrize("change", [{"seed": -1}, {"recipe": {"gamma": 0.5}}, {"mode": 3}, {"pins": 3}])
def test_a_damaged_request_is_refused(change):
    data = lampq.plan(make_profile(**SMALL), average_bits=4).to_json()
    data["request"] |= change
    with pytest.raises(LampqError):
        Plan.from_json(data)


def test_reasons_judge_a_plan_by_its_own_recipe():
    profile = make_profile(**SMALL)
    plan = lampq.plan(profile, average_bits=6, mode="lampq", recipe=Recipe(gamma=8.0))
    told = [f"{abs(row[4]):.2e} for {abs(row[5]):,} bytes" for row in why(plan, profile).rows]
    assert told
    sentences = " ".join(layer.why for layer in plan.layers)
    assert all(text in sentences for text in told)
    published = [row[4] for row in why(dataclasses.replace(plan, request=None), profile).rows]
    assert published != [row[4] for row in why(plan, profile).rows]


def test_a_largest_kl_can_be_set_aside():
    request = Request(budget=Budget(max_kl=0.1, max_bops=7), mode="kl")
    assert without_largest_kl(request).budget == Budget(max_bops=7)
    assert without_largest_kl(Request(budget=Budget(max_kl=0.1))).budget is None


def test_the_command_line_keeps_the_recipe_in_the_plan(tmp_path):
    make_profile(**SMALL).write(tmp_path / "p.json")
    words = ["plan", tmp_path / "p.json", "--avg-bits", "5", "--mode", "lampq", "--gamma", "3", "--seed", "4"]
    assert main([str(word) for word in [*words, "--quiet", "-o", tmp_path / "plan.json"]]) == 0
    request = Plan.read(tmp_path / "plan.json").request
    assert (request.recipe.gamma, request.seed) == (3.0, 4)
