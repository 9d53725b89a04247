"""Every kind of limit, alone and together, against brute force over all plans of small profiles."""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import make_profile, pair_profile, with_inputs

import lampq
from lampq.core.allocating.allocation import build_problem
from lampq.core.allocating.clash import refuse_clash
from lampq.core.allocating.limits import bit_operations, input_elements
from lampq.core.measuring.interaction import profile_interaction
from lampq.core.values.budget import Budget
from lampq.core.values.cost_table import CostRow, CostTable
from lampq.core.values.errors import BudgetError, LampqError, PlanError, RecordError
from lampq.core.values.option import Option
from lampq.solvers import solve

SMALL = {"kinds": ("patch_embed", "qkv", "fc1", "head"), "widths": (2, 3, 4, 8)}
steady = settings(max_examples=20, deadline=None, derandomize=True)


def random_table(profile, rng, name="latency"):
    rows = tuple(
        CostRow(
            layer=layer.name,
            kind="",
            shape=(),
            weight_bits=option.weight_bits,
            input_bits=None if option.activation_bits is None else option.activation_bits,
            value=Fraction(int(rng.integers(1, 1000)), 1000) * option.weight_bits,
        )
        for layer in profile.layers
        for option in profile.options
    )
    return CostTable(name=name, unit="ms", limit=Fraction(0), rows=rows)


def usage(profile, choice, table):
    """What a plan takes, written out term by term: bits, bytes, BOPs, latency, layers at 4 bits or more."""
    chosen = [profile.options[j] for j in choice]
    values = {(row.layer, row.weight_bits, row.input_bits): row.value for row in table.rows}
    return {
        "bits": sum(layer.size * o.weight_bits for layer, o in zip(profile.layers, chosen, strict=True)),
        "bytes": sum(int(profile.payload_bytes[i, j]) for i, j in enumerate(choice)),
        "bops": sum(
            layer.macs * o.weight_bits * (o.activation_bits or 32)
            for layer, o in zip(profile.layers, chosen, strict=True)
        ),
        "latency": sum(
            values[layer.name, o.weight_bits, o.activation_bits]
            for layer, o in zip(profile.layers, chosen, strict=True)
        ),
        "wide": sum(o.weight_bits >= 4 for o in chosen),
    }


def random_budget(profile, rng, table):
    """Limits that a random plan just keeps, a random subset of them."""
    anchor = rng.integers(0, len(profile.options), len(profile.layers)).tolist()
    used = usage(profile, anchor, table)
    weights = int(profile.sizes.sum())
    limits = {
        "average_bits": str(-(-used["bits"] * 10**6 // weights) / 10**6),
        "size_bytes": used["bytes"] + profile.rest_bytes,
        "max_bops": used["bops"],
        "tables": (dataclasses.replace(table, limit=used["latency"]),),
        "at_most": (f"{used['wide']}@4+",),
    }
    kept = rng.permutation(list(limits))[: int(rng.integers(1, 6))]
    return Budget(**{name: limits[name] for name in kept}), limits, set(kept)


def keeps(profile, choice, table, limits, kept):
    used = usage(profile, choice, table)
    weights = int(profile.sizes.sum())
    return (
        ("average_bits" not in kept or Fraction(used["bits"], weights) <= Fraction(limits["average_bits"]))
        and ("size_bytes" not in kept or used["bytes"] + profile.rest_bytes <= limits["size_bytes"])
        and ("max_bops" not in kept or used["bops"] <= limits["max_bops"])
        and ("tables" not in kept or used["latency"] <= limits["tables"][0].limit)
        and ("at_most" not in kept or used["wide"] <= int(limits["at_most"][0].split("@")[0]))
    )


@steady
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["exact", "scipy", "cbc"]))
def test_plans_under_any_limits_are_those_of_brute_force(seed, pairs, solver):
    rng = np.random.default_rng(seed)
    profile = pair_profile(seed % 97) if pairs else make_profile(seed % 97, **SMALL)
    table = random_table(profile, rng)
    budget, limits, kept = random_budget(profile, rng, table)
    best = min(
        sum(profile.kl[i, j] for i, j in enumerate(choice))
        for choice in itertools.product(range(len(profile.options)), repeat=len(profile.layers))
        if keeps(profile, choice, table, limits, kept)
    )
    plan = lampq.plan(profile, budget=budget, mode="kl", solver=solver)
    assert plan.predicted_kl == pytest.approx(best, rel=1e-9)
    widths = [Option(weight_bits=p.weight_bits, activation_bits=p.activation_bits) for p in plan.layers]
    assert keeps(profile, [profile.options.index(o) for o in widths], table, limits, kept)


@pytest.mark.parametrize("seed", range(6))
def test_plans_with_interactions_under_any_limits_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    profile = make_profile(seed, **SMALL)
    table = random_table(profile, rng)
    budget, limits, kept = random_budget(profile, rng, table)
    interaction = profile_interaction(profile)
    best = min(
        float(interaction.predict(np.array(choice)))
        for choice in itertools.product(range(4), repeat=4)
        if keeps(profile, choice, table, limits, kept)
    )
    plan = lampq.plan(profile, budget=budget)
    assert plan.predicted_kl == pytest.approx(best, rel=1e-6)
    choice = [SMALL["widths"].index(layer.weight_bits) for layer in plan.layers]
    assert keeps(profile, choice, table, limits, kept)


@steady
@given(st.integers(0, 10**6))
def test_more_budget_never_costs_more(seed):
    rng = np.random.default_rng(seed)
    profile = make_profile(seed % 89, **SMALL)
    table = random_table(profile, rng)
    budget, limits, kept = random_budget(profile, rng, table)
    before = lampq.plan(profile, budget=budget, mode="kl").predicted_kl
    name = sorted(kept)[int(rng.integers(len(kept)))]
    wider = {
        "average_bits": str(2 * float(limits["average_bits"])),
        "size_bytes": limits["size_bytes"] + int(rng.integers(1, 500)),
        "max_bops": limits["max_bops"] * 2,
        "tables": (dataclasses.replace(limits["tables"][0], limit=limits["tables"][0].limit * 2),),
        "at_most": (f"{int(limits['at_most'][0].split('@')[0]) + 1}@4+",),
    }
    after = lampq.plan(profile, budget=dataclasses.replace(budget, **{name: wider[name]}), mode="kl")
    assert after.predicted_kl <= before * (1 + 1e-12)


@steady
@given(st.integers(0, 10**6))
def test_permuting_layers_permutes_the_plan_and_scaling_damage_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    profile = make_profile(seed % 83, kinds=("qkv", "fc1", "fc2", "proj", "head"))
    order = rng.permutation(5)
    mixed = profile.part(order).with_tables(kl=profile.kl[order] * 0.125, logit_delta=None)
    budget = Budget(average_bits="3.7", max_bops=int(bit_operations(profile)[:, 2].sum()), at_most=("3@4+",))
    first, second = (lampq.plan(p, budget=budget, mode="kl") for p in (profile, mixed))
    assert second.predicted_kl == pytest.approx(first.predicted_kl * 0.125, rel=1e-9)
    assert second.widths == first.widths


@steady
@given(st.integers(0, 10**6))
def test_pins_floors_ceilings_and_ties_hold_together(seed):
    rng = np.random.default_rng(seed)
    profile = make_profile(seed % 79)
    pins = [f"head={rng.integers(2, 9)}"]
    low, high = sorted(rng.integers(2, 9, 2).tolist())
    budget = Budget(average_bits=8, floors=(f"qkv={low}",), ceilings=(f"qkv={high}", "fc1=6"))
    plan = lampq.plan(profile, budget=budget, mode="kl", pins=pins, ties=["blocks.{3,4}.{fc1,fc2}"])
    for layer in plan.layers:
        if layer.kind == "qkv":
            assert low <= layer.weight_bits <= high
        if layer.kind == "fc1":
            assert layer.weight_bits <= 6
    assert plan.layers[-1].weight_bits == int(pins[0][-1])
    assert plan.layers[3].weight_bits == plan.layers[4].weight_bits <= 6


@pytest.mark.parametrize(
    ("text", "kept"),
    [("2@8", lambda w: w.count(8) <= 2), ("0@8", lambda w: 8 not in w), ("1@3-", lambda w: sum(b <= 3 for b in w) <= 1),
     ("3@4+", lambda w: sum(b >= 4 for b in w) <= 3)],
)  # fmt: skip
def test_count_limits(text, kept):
    profile = make_profile()
    plan = lampq.plan(profile, budget=Budget(average_bits=5, at_most=(text,)), mode="kl")
    assert kept([layer.weight_bits for layer in plan.layers])


def test_bit_operations_count_float_inputs_as_32_bits():
    profile = pair_profile()
    mixed = dataclasses.replace(
        profile, options=(*profile.options[:-1], Option(weight_bits=8, activation_bits=None))
    )
    assert bit_operations(profile)[1, 3] == profile.layers[1].macs * 4 * 8
    assert bit_operations(mixed)[2, 5] == profile.layers[2].macs * 8 * 32


def test_layer_inputs_are_counted_per_sample_and_limited_exactly():
    profile = with_inputs(pair_profile(), [10, 3, 8, 5])
    assert input_elements(profile).tolist() == [10, 3, 8, 5]
    # 10 values of 4 bits are 5 bytes, of 8 bits 10: nine bytes leave the first layer 4 bits, all others 8.
    plan = lampq.plan(profile, budget=Budget(max_activation_bytes=9), mode="kl")
    assert [layer.activation_bits for layer in plan.layers] == [4, 8, 8, 8]
    assert (
        lampq.plan(profile, budget=Budget(max_activation_bytes=10), mode="kl").layers[0].activation_bits == 8
    )
    with pytest.raises(BudgetError, match="takes at least 5 bytes"):
        lampq.plan(profile, budget=Budget(max_activation_bytes=4), mode="kl")


def test_the_largest_kl_goes_with_other_limits():
    profile = make_profile(**SMALL)
    bops = bit_operations(profile)
    target, most = 0.5 * profile.kl[:, 0].sum(), int(bops[:, 2].sum())
    plan = lampq.plan(profile, budget=Budget(max_kl=target, max_bops=most), mode="kl")
    best = min(
        sum(int(profile.payload_bytes[i, j]) for i, j in enumerate(choice))
        for choice in itertools.product(range(4), repeat=4)
        if sum(profile.kl[i, j] for i, j in enumerate(choice)) <= target
        and sum(bops[i, j] for i, j in enumerate(choice)) <= most
    )
    assert plan.payload_bytes == best
    # Few bytes clash with the other limits; the search must step over that.
    few = lampq.plan(profile, budget=Budget(max_kl=1e9, at_most=("1@2",)))
    assert few.payload_bytes == min(
        sum(int(profile.payload_bytes[i, j]) for i, j in enumerate(choice))
        for choice in itertools.product(range(4), repeat=4)
        if choice.count(0) <= 1
    )
    interaction = profile_interaction(profile)
    target = float(interaction.predict(np.zeros(4, dtype=int))) / 3
    joint = lampq.plan(profile, budget=Budget(max_kl=target, max_bops=most))
    assert joint.mode == "superposition"
    assert joint.payload_bytes == min(
        sum(int(profile.payload_bytes[i, j]) for i, j in enumerate(choice))
        for choice in itertools.product(range(4), repeat=4)
        if float(interaction.predict(np.array(choice))) <= target
        and sum(bops[i, j] for i, j in enumerate(choice)) <= most
    )


def test_clashing_limits_are_named_with_what_could_be_met_instead():
    profile = make_profile(kinds=("qkv", "fc1", "fc2", "head"), widths=(2, 4, 8))
    # Narrow weights are slow here: few bits and little latency cannot be had together.
    rows = tuple(
        CostRow(layer="*", kind="", shape=(), weight_bits=bits, input_bits=None, value=Fraction(ms, 10))
        for bits, ms in ((2, 40), (4, 25), (8, 10))
    )
    table = CostTable(name="latency", unit="ms", limit=Fraction(5), rows=rows)
    budget = Budget(average_bits="2.5", tables=(table,), at_most=("4@8",))
    with pytest.raises(BudgetError) as caught:
        lampq.plan(profile, budget=budget, mode="kl")
    message = str(caught.value)
    assert "average bits 2.5 and latency 5 ms together" in message
    assert "at most" not in message
    assert "\n" not in message
    # The nearest values are feasible as they stand, and nothing below them is.
    bits = message.split("allow at least ")[1].split(" average bits")[0]
    milliseconds = message.split(" or ")[1].split(" ms")[0]
    lampq.plan(profile, budget=dataclasses.replace(budget, average_bits=bits), mode="kl")
    for value, feasible in (
        (Fraction(milliseconds), True),
        (Fraction(milliseconds) - Fraction(1, 10), False),
    ):
        changed = dataclasses.replace(budget, tables=(dataclasses.replace(table, limit=value),))
        problem = build_problem(profile, profile.kl, changed)
        if feasible:
            refuse_clash(profile, changed, problem, solve)
        else:
            with pytest.raises(BudgetError):
                refuse_clash(profile, changed, problem, solve)


def test_the_floor_of_average_bits_is_rounded_to_a_value_that_works():
    profile = make_profile()
    with pytest.raises(BudgetError) as caught:
        lampq.plan(profile, average_bits="2.001", pins=["blocks.1.*=3"])
    floor = str(caught.value).split("floor of ")[1].split(" ")[0]
    assert lampq.plan(profile, average_bits=floor, pins=["blocks.1.*=3"]).average_bits <= float(floor)


@pytest.mark.parametrize(
    ("limits", "more", "error", "message"),
    [
        ({"floors": ("qkv=6",), "ceilings": ("qkv=4",)}, {}, BudgetError, "floor 'qkv=6' and ceiling 'qkv=4' leave"),
        ({"ceilings": ("head=4",)}, {"pins": ["head=8"]}, BudgetError, "pin 'head=8' and ceiling 'head=4'"),
        ({"floors": ("head=5",)}, {"pins": ["blocks.8.fc2=4"], "ties": ["blocks.{8,9}.{fc2,head}"]}, BudgetError,
         r"tie .*blocks.8.fc2 may take 4 bits \(pin .*blocks.9.head may take 5 bits, 6 bits"),
        ({"floors": ("head=9",)}, {}, PlanError, "floor 'head=9'"),
        ({"floors": ("nose=4",)}, {}, PlanError, "'nose' matches no layer"),
        ({"at_most": ("many@4",)}, {}, BudgetError, "LAYERS@BITS"),
        ({"at_most": ("2@9",)}, {}, BudgetError, "width '9'"),
        ({"at_most": ("0@2+",)}, {}, BudgetError, "at most 0 layers at 2 bits or more is below the floor of 10"),
        ({"max_bops": 0}, {}, BudgetError, "above 0"),
        ({"max_bops": 10}, {}, BudgetError, "10 BOPs is below the floor of"),
        ({"max_kl": float("nan")}, {}, BudgetError, "above 0 nats"),
        ({"max_kl": float("inf")}, {}, BudgetError, "above 0 nats"),
        ({"average_bits": "3MB"}, {}, BudgetError, "write a number"),
        ({"average_bits": "1e999999999"}, {}, BudgetError, "write a number"),
        ({"max_activation_bytes": 100}, {}, BudgetError, "--data"),
    ],
)  # fmt: skip
def test_impossible_limits_name_what_and_why(limits, more, error, message):
    with pytest.raises(error, match=message) as caught:
        lampq.plan(make_profile(), budget=Budget(**limits), **more)
    assert "\n" not in str(caught.value)


def test_bops_without_macs_name_the_layers():
    with pytest.raises(BudgetError, match=r"blocks.0.patch_embed, .* and 7 more have none"):
        lampq.plan(make_profile(data=False), budget=Budget(max_bops=10**9))


@pytest.mark.parametrize("budget", [Budget(size_bytes=2500), Budget(max_kl=1.0), Budget(average_bits="4.5")])
def test_what_a_format_cannot_store_is_left_out_under_every_limit(budget):
    profile = make_profile(2, **SMALL)
    payload = profile.payload_bytes.copy()
    payload[1, 0] = payload[2, 3] = payload[3, 1] = -1
    profile = profile.with_tables(payload_bytes=payload)
    plans = [
        (sum(int(payload[i, j]) for i, j in enumerate(c)), sum(profile.kl[i, j] for i, j in enumerate(c)), c)
        for c in itertools.product(range(4), repeat=4)
        if all(payload[i, j] >= 0 for i, j in enumerate(c))
    ]
    plan = lampq.plan(profile, budget=budget, mode="kl")
    if budget.max_kl:
        assert plan.payload_bytes == min(size for size, damage, _ in plans if damage <= 1.0)
        return
    bits = profile.sizes[:, None] * profile.weight_bits
    fitting = [
        damage
        for size, damage, c in plans
        if (
            size + 1000 <= 2500 if budget.size_bytes else bits[range(4), c].sum() <= 4.5 * profile.sizes.sum()
        )
    ]
    assert plan.predicted_kl == pytest.approx(min(fitting))


def test_layers_without_weights_are_refused_by_name():
    layer = make_profile().layers[0]
    with pytest.raises(RecordError, match=r"blocks.0.patch_embed: no weights, its shape is \(0, 4\)"):
        dataclasses.replace(layer, shape=(0, 4), size=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_damage_that_is_no_number_is_refused_by_name(value):
    profile = make_profile()
    kl = profile.kl.copy()
    kl[2, 3] = value
    with pytest.raises(RecordError, match=r"blocks\.2\.proj"):
        profile.with_tables(kl=kl)


def test_a_limit_is_given_once():
    with pytest.raises(BudgetError, match="given twice"):
        lampq.plan(make_profile(), average_bits=3, budget=Budget(average_bits=4))


def test_plans_carry_their_limits_and_give_them_back(tmp_path):
    profile = make_profile(**SMALL)
    table = dataclasses.replace(random_table(profile, np.random.default_rng(0)), limit=Fraction("12.75"))
    budget = Budget(
        average_bits="3.5",
        max_bops=10**9,
        tables=(table,),
        at_most=("3@4+",),
        floors=("qkv=3",),
        ceilings=("head=8",),
    )
    plan = lampq.plan(profile, budget=budget, pins=["fc1=4"])
    plan.write(tmp_path / "plan.json")
    back = lampq.Plan.read(tmp_path / "plan.json")
    assert back.budget == plan.budget
    assert back.budget["pins"] == ["fc1=4"]
    again = Budget.from_json(back.budget)
    assert again == dataclasses.replace(budget, average_bits=3.5)
    assert lampq.plan(profile, budget=again, pins=back.budget["pins"]).widths == plan.widths


@pytest.mark.parametrize(
    "data",
    [{}, {"average_bits": []}, {"tables": [{}]}, {"tables": 4}, {"size_bytes": "x"}, {"at_most": [3]}, {"max_kl": "a"},
     {"tables": [{"name": "latency", "unit": "ms", "limit": "1", "rows": [["a", "", [], 4, None, "1e999999999"]]}]}],
)  # fmt: skip
def test_damaged_budgets_are_refused(data):
    with pytest.raises(LampqError):
        Budget.from_json(data)
