"""Searches: who solves is passed in, what is asked is told, and what is left out is told too."""

import dataclasses
import itertools

import numpy as np
import pytest
from records import make_profile, pair_profile
from test_best_plan import measured_model

from lampq import solvers
from lampq.core.allocating.limits import BYTES
from lampq.core.allocating.scores import score
from lampq.core.planning.search import Search
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError
from lampq.core.values.option import Option
from lampq.core.values.recipe import Recipe
from lampq.core.values.request import Request
from lampq.core.values.solution import Solution, Status, Stop
from lampq.verbs.best_plan import best_plan

SMALL = {"kinds": ("patch_embed", "qkv", "fc1", "head"), "widths": (2, 3, 4, 8)}


def brute_force(problem, *, solver="auto", time_limit_s=None):
    """A solver that tries everything."""
    rows = np.arange(len(problem.cost))
    choices = [np.array(c) for c in itertools.product(range(problem.cost.shape[1]), repeat=len(rows))]
    fitting = [c for c in choices if (problem.usage(c) <= problem.limits).all()]
    best = min(fitting, key=problem.objective)
    damage = problem.objective(best)
    return Solution(
        status=Status.OPTIMAL, stop=Stop.FINISHED, choice=best, objective=damage, bound=damage, seconds=0.0,
        solver="brute",
    )  # fmt: skip


@pytest.mark.parametrize("budget", [{"average_bits": 3.3}, {"max_kl": 0.02}])
def test_any_solver_can_be_passed_in(budget):
    profile, request = make_profile(1, **SMALL), Request.of(mode="kl", **budget)
    ours, theirs = (Search.of(profile, request, solve) for solve in (solvers.solve, brute_force))
    solution = theirs.best().solution
    assert solution.solver == "brute"
    assert solution.objective == pytest.approx(ours.best().solution.objective)
    assert theirs.plan(solution).widths == ours.plan(ours.best().solution).widths


def test_the_solver_and_its_time_are_those_of_the_request():
    asked = []

    def solve(problem, *, solver="auto", time_limit_s=None):
        asked.append((solver, time_limit_s))
        return solvers.solve(problem)

    request = Request.of(average_bits=3, mode="kl", solver="scipy", time_limit_s=7.0)
    Search.of(make_profile(**SMALL), request, solve).best()
    assert asked == [("scipy", 7.0)]


def test_a_narrower_limit_never_loses_less():
    search = Search.of(make_profile(2, **SMALL), Request.of(average_bits=4, mode="kl"), solvers.solve)
    limit = int(search.problem.limits[0])
    damages = [search.within(limit - cut).best().solution.objective for cut in (0, 100, 300)]
    assert damages == sorted(damages)


def test_the_smallest_plan_that_keeps_a_damage_has_none_below_it():
    search = Search.of(make_profile(2, **SMALL), Request.of(max_kl=0.02, mode="kl"), solvers.solve)
    resource = search.problem.resource_names.index(BYTES)
    solution = search.best().solution
    assert solution.objective <= 0.02
    size = int(search.problem.usage(solution.chosen)[resource])
    assert search.within(size - 1, resource).best().solution.objective > 0.02


def test_a_damage_that_no_plan_keeps_is_refused():
    search = Search.of(make_profile(2, **SMALL), Request.of(average_bits=8, mode="kl"), solvers.solve)
    free = dataclasses.replace(search, request=Request.of(max_kl=1.0, mode="kl"))
    with pytest.raises(BudgetError, match="the widest plan within the limits"):
        Search.of(free.profile, Request.of(max_kl=1e-12, mode="kl"), solvers.solve)


def test_the_plan_tells_the_pins_of_the_mode_and_the_request_those_of_the_user():
    request = Request.of(average_bits=5, mode="lampq", pins=["qkv=3"])
    search = Search.of(make_profile(**SMALL), request, solvers.solve)
    plan = search.plan(search.best().solution)
    assert plan.budget["pins"] == ["patch_embed=8", "head=8", "qkv=3"]
    assert plan.request.pins == ("qkv=3",)


def test_an_update_that_widths_with_gaps_do_not_allow_is_told():
    model, images, profile = measured_model(0)
    plan = best_plan(model, profile, images, Budget(average_bits=4), mode="lampq")
    told = "the update of mode lampq was left out: it moves by single bits, and the profile has widths 2, 3, 4, 6"
    assert told in plan.notes
    for choices in ({"rounds": 0}, {"recipe": Recipe(most_swaps=0)}):
        unasked = best_plan(model, profile, images, Budget(average_bits=4), mode="lampq", **choices)
        assert told not in unasked.notes


def test_plans_of_equal_widths_that_cannot_be_tried_are_told():
    from lampq.core.planning.best import _equal_choices, _Trial

    profile = pair_profile()
    uneven = [i for i, o in enumerate(profile.options) if o.weight_bits != o.activation_bits]
    profile = dataclasses.replace(profile.narrowed(uneven))
    search = Search.of(profile, Request.of(average_bits=4, mode="kl"), solvers.solve)
    search = dataclasses.replace(search, score=score("superposition"))
    trial = _Trial(
        search=search, model=None, reference=None, parts=(), rounds_inputs=True, journal=None, progress=None
    )
    choices, notes = _equal_choices(trial)
    assert choices == []
    assert len(notes) == 1
    assert "no plan of equal widths for weights and inputs was tried: " in notes[0]
    assert all(isinstance(option, Option) for option in search.profile.options)
