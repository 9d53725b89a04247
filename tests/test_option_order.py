"""Options of two widths: their order, repaired damage, uniform plans and rules, against definitions written out."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import pair_profile

import lampq
from lampq.core.allocating.allocation import build_problem, uniform_choice
from lampq.core.allocating.allowed import allowed_options
from lampq.core.allocating.limits import bit_operations
from lampq.core.allocating.predicted_damage import predicted_damage
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError, LampqError, RecordError
from lampq.core.values.option import Option
from lampq.core.values.option_order import cover_table, next_options, running_minimum
from lampq.core.values.width import parse_width

steady = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def menus(draw):
    """Distinct options in rising order: chains, grids and anything between."""
    pairs = draw(
        st.sets(st.tuples(st.integers(1, 8), st.sampled_from([None, 2, 4, 6, 8])), min_size=1, max_size=9)
    )
    return tuple(sorted(Option(weight_bits=w, activation_bits=a) for w, a in pairs))


def narrower(a, b):
    """Whether option a is narrower than b in one width at least and wider in none."""
    left, right = (a.weight_bits, a.activation_bits or 32), (b.weight_bits, b.activation_bits or 32)
    return left != right and left[0] <= right[0] and left[1] <= right[1]


@steady
@given(menus(), st.integers(0, 10**6))
def test_the_running_minimum_follows_the_order(options, seed):
    scores = np.random.default_rng(seed).random((3, len(options)))
    smooth = running_minimum(scores, options)
    for layer, j in itertools.product(range(3), range(len(options))):
        below = [scores[layer, k] for k, other in enumerate(options) if narrower(other, options[j])]
        assert smooth[layer, j] == min([scores[layer, j], *below])


@steady
@given(menus(), st.integers(0, 10**6))
def test_the_next_options_have_nothing_in_between(options, seed):
    rng = np.random.default_rng(seed)
    allowed, at = rng.random(len(options)) < 0.8, int(rng.integers(len(options)))
    below, above = next_options(cover_table(options), allowed, at)
    here = options[at]
    others = [k for k in range(len(options)) if allowed[k] and k != at]
    for found, side in (
        (below, lambda k: narrower(options[k], here)),
        (above, lambda k: narrower(here, options[k])),
    ):
        candidates = [k for k in others if side(k)]
        for k in candidates:
            between = any(
                (narrower(options[k], options[m]) and narrower(options[m], here))
                or (narrower(here, options[m]) and narrower(options[m], options[k]))
                for m in candidates
            )
            assert (k in found) == (not between)
        assert set(found) <= set(candidates)


def test_options_sort_with_float_inputs_last():
    options = [
        Option(weight_bits=4),
        Option(weight_bits=2, activation_bits=8),
        Option(weight_bits=4, activation_bits=8),
    ]
    assert [option.to_text() for option in sorted(options)] == ["w2a8", "w4a8", "w4"]


def test_damage_that_rises_along_one_width_only_is_repaired_and_named():
    profile = pair_profile()
    kl = profile.kl.copy()
    # w4a8 of layer 1 measures worse than w4a4 but better than w2a8: only the former is wrong.
    kl[1, 3] = 0.5 * (kl[1, 2] + max(kl[1, 1], 1.5 * kl[1, 2]))
    assert kl[1, 3] > kl[1, 2]
    profile = profile.with_tables(kl=kl)
    smooth, repaired = predicted_damage(profile, "kl")
    assert smooth[1, 3] == min(kl[1, [0, 1, 2, 3]])
    assert repaired == ("blocks.1.qkv",)
    plan = lampq.plan(profile, average_bits=4, mode="kl")
    assert any("blocks.1.qkv does not fall" in note and "running minimum" in note for note in plan.notes)
    # w2a8 and w4a4 are not comparable: neither repairs the other.
    assert predicted_damage(pair_profile(), "kl")[1] == ()


@pytest.mark.parametrize("seed", range(5))
def test_the_uniform_plan_of_pairs_is_the_least_damaging_that_fits(seed):
    profile = pair_profile(seed)
    bops = bit_operations(profile)
    limit = int(np.random.default_rng(seed).integers(bops[:, 0].sum(), bops[:, -1].sum()))
    problem = build_problem(profile, profile.kl, Budget(max_bops=limit))
    best = min((j for j in range(6) if bops[:, j].sum() <= limit), key=lambda j: profile.kl[:, j].sum())
    assert uniform_choice(profile, problem).tolist() == [best] * 4


@pytest.mark.parametrize("mode", ["fisher", "error"])
def test_scores_that_see_no_inputs_do_not_choose_their_widths(mode):
    with pytest.raises(RecordError, match="several input widths"):
        lampq.plan(pair_profile(), average_bits=4, mode=mode)
    assert lampq.plan(pair_profile(inputs=(8,)), average_bits=4, mode=mode).mode == mode


def test_rules_may_name_either_width():
    profile = pair_profile()
    texts = [option.to_text() for option in profile.options]

    def left(layer, **rules):
        pins = rules.pop("pins", ())
        budget = Budget(average_bits=8, **rules)
        mask = allowed_options(profile, budget, pins=pins)[layer]
        return [text for text, flag in zip(texts, mask, strict=True) if flag]

    assert left(3, pins=["head=8"]) == ["w8a4", "w8a8"]
    assert left(3, pins=["head=a4"]) == ["w2a4", "w4a4", "w8a4"]
    assert left(3, pins=["head=w4a8"]) == ["w4a8"]
    assert left(1, floors=("qkv=w4a8",)) == ["w4a8", "w8a8"]
    assert left(1, ceilings=("qkv=w4a4",)) == ["w2a4", "w4a4"]
    assert left(2, pins=["head=8"], floors=("fc1=4",), ceilings=("fc1=4",)) == ["w4a4", "w4a8"]
    with pytest.raises(BudgetError, match=r"leave it no option of w2a4, w2a8, w4a4"):
        left(3, pins=["head=w4a8"], ceilings=("head=a4",))
    with pytest.raises(LampqError, match="profile w3a8 too"):
        left(3, pins=["head=w3a8"])


@pytest.mark.parametrize("seed", range(4))
def test_pins_of_one_width_leave_the_other_to_the_search(seed):
    profile = pair_profile(seed)
    bops = bit_operations(profile)
    most = int(bops[:, 3].sum())
    plan = lampq.plan(profile, budget=Budget(max_bops=most, at_most=("2@a8",)), mode="kl", pins=["head=8"])
    best = min(
        sum(profile.kl[i, j] for i, j in enumerate(choice))
        for choice in itertools.product(range(6), repeat=4)
        if bops[range(4), choice].sum() <= most and choice[3] >= 4 and sum(j % 2 for j in choice) <= 2
    )
    assert plan.predicted_kl == pytest.approx(best)


@pytest.mark.parametrize("text", ["", "w", "9", "a1", "a12", "a17", "w0", "8w", "4.5", "w8a", "eight"])
def test_no_widths(text):
    with pytest.raises(BudgetError, match="width"):
        parse_width(text)
