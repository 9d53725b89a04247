"""Latency and energy tables: reading, matching, units, exact integers, and every way a table can be wrong."""

from fractions import Fraction

import numpy as np
import pytest
from records import make_profile, pair_profile

import lampq
from lampq.core.allocating.cost_csv import read_cost_table
from lampq.core.values.budget import Budget
from lampq.core.values.cost_table import CostTable, decimal
from lampq.core.values.errors import BudgetError
from lampq.core.values.product import Product

PROFILE = make_profile(kinds=("qkv", "fc1", "head"), widths=(2, 4))
EVERYTHING = np.ones((3, 2), dtype=bool)
SHAPES = ["x".join(map(str, layer.shape)) for layer in PROFILE.layers]


def table(tmp_path, text, **options):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return read_cost_table(path, **{"limit": "5ms", **options})


def values(found):
    return [[decimal(v) for v in row] for row in found.values(PROFILE.layers, PROFILE.options, EVERYTHING)]


def test_names_patterns_shapes_and_kinds_the_most_particular_first(tmp_path):
    text = f"""layer,kind,shape,weight_bits,latency_ms
qkv,,,2,1
blocks.*,,,2,2
*,,,4,9.25
blocks.2.head,,,2,4
,head,,2,5
,fc1,{SHAPES[1]},2,6
"""
    # Layer 1: a pattern outweighs a shape; layer 2: a name outweighs all.
    assert values(table(tmp_path, text)) == [["2", "9.25"], ["2", "9.25"], ["4", "9.25"]]
    kinds = "kind;weight_bits;latency [ms]\nqkv;2;1\nqkv;4;2\nfc1;2;3\nfc1;4;4\nhead;2;5\nhead;4;6\n"
    assert values(table(tmp_path, kinds)) == [["1", "2"], ["3", "4"], ["5", "6"]]
    shapes = "shape\tw_bits\tms\n" + "".join(
        f"{s}\t{b}\t{b}.5\n" for s in dict.fromkeys(SHAPES) for b in (2, 4)
    )
    assert values(table(tmp_path, shapes)) == [["2.5", "4.5"]] * 3


def test_rows_of_a_shape_are_for_layers_and_not_for_products(tmp_path):
    product = Product(name="blocks.0@scores", left="l", right="r", left_values=8, right_values=8, macs=64)
    text = f"layer,shape,weight_bits,latency_ms\n*scores,,2,1\n*scores,,4,2\n,{SHAPES[0]},2,3\n,{SHAPES[0]},4,4\n"
    places, allowed = (PROFILE.layers[0], product), np.ones((2, 2), dtype=bool)
    assert table(tmp_path, text).values(places, PROFILE.options, allowed) == [[3, 4], [1, 2]]


def test_a_row_for_one_input_width_outweighs_one_for_any(tmp_path):

    profile = pair_profile(weights=(4,), kinds=("qkv",))
    text = "layer,weight_bits,act_bits,latency_us\n*,4,,100\n*,4,8,70\n"
    found = table(tmp_path, text, limit="80 us")
    mask = np.ones((1, 2), dtype=bool)
    assert found.values(profile.layers, profile.options, mask) == [[100, 70]]
    assert lampq.plan(profile, budget=Budget(tables=(found,)), mode="kl").layers[0].activation_bits == 8


@pytest.mark.parametrize(
    ("header", "limit", "unit", "expected"),
    [("latency_ms", "5ms", "ms", 5), ("latency_ms", "5000 us", "ms", 5), ("latency_us", "0.005s", "us", 5000),
     ("time (µs)", "5", "µs", 5), ("latency_s", "2.5 ms", "s", Fraction(25, 10**4)), ("energy_mJ", "1e3uJ", "mj", 1),
     ("cycles", "3 kcycles", "cycles", 3000)],
)  # fmt: skip
def test_units(tmp_path, header, limit, unit, expected):
    found = table(tmp_path, f"layer,weight_bits,{header}\n*,2,1\n*,4,1\n", limit=limit)
    assert (found.unit, found.limit) == (unit, expected)


def test_unit_and_limit_may_stand_in_the_table(tmp_path):
    text = "# unit: ms\n# limit: 7.5 ms\nlayer,weight_bits,value\n*,2,1\n*,4,2\n"
    found = table(tmp_path, text, limit=None)
    assert (found.unit, found.limit) == ("ms", Fraction("7.5"))
    text = "layer,weight_bits,value,unit\n*,2,1,ms\n*,4,2000,us\n"
    assert values(table(tmp_path, text)) == [["1", "2"]] * 3


def test_values_become_integers_exactly(tmp_path):
    found = table(tmp_path, "layer,weight_bits,latency_ms\n*,2,0.1\n*,4,0.125\n", limit="0.35ms")
    use, resolution = found.integers(PROFILE.layers, PROFILE.options, EVERYTHING)
    assert [[u * resolution for u in row] for row in use.tolist()] == [[Fraction(1, 10), Fraction(1, 8)]] * 3
    assert found.is_exact(resolution)
    # 0.1 + 0.125 + 0.125 is the limit to the last digit.
    plan = lampq.plan(PROFILE, budget=Budget(tables=(found,)), mode="kl")
    assert sorted(layer.weight_bits for layer in plan.layers) == [2, 4, 4]


def test_long_decimals_are_rounded_up_and_the_plan_says_so(tmp_path):
    found = table(tmp_path, "layer,weight_bits,latency_ms\n*,2,1.23456789012345678901\n*,4,3\n", limit="9ms")
    use, resolution = found.integers(PROFILE.layers, PROFILE.options, EVERYTHING)
    exact = found.values(PROFILE.layers, PROFILE.options, EVERYTHING)
    for row, cells in zip(use.tolist(), exact, strict=True):
        for integer, value in zip(row, cells, strict=True):
            assert value <= integer * resolution < value + resolution
    assert use.sum() < 2**53
    plan = lampq.plan(PROFILE, budget=Budget(tables=(found,)), mode="kl")
    assert any("rounded up to 0.00000000001 ms" in note for note in plan.notes)


def test_missing_layers_and_widths_are_named_in_one_line(tmp_path):
    found = table(tmp_path, "layer,weight_bits,latency_ms\nqkv,2,1\nqkv,4,1\nfc1,2,1\n")
    with pytest.raises(
        BudgetError, match=r"no value for blocks.1.fc1 at w4; blocks.2.head at w2, w4"
    ) as caught:
        lampq.plan(PROFILE, budget=Budget(tables=(found,)))
    assert "\n" not in str(caught.value)
    # What the plan may not take need not be in the table.
    found = table(tmp_path, "layer,weight_bits,latency_ms\n*,2,1\n")
    assert lampq.plan(PROFILE, budget=Budget(tables=(found,), ceilings=("*=2",))).average_bits == 2


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("layer,weight_bits,value\n*,2,1\n", {}, "no unit"),
        ("# unit: parsec\nlayer,weight_bits,value\n*,2,1\n", {}, "'parsec' is no unit"),
        ("layer,weight_bits,latency_ms\n*,2,1\n", {"limit": None}, "give --max-latency"),
        ("layer,weight_bits,latency_ms\n*,2,1\n", {"limit": "5MB"}, "'MB' and 'ms' are no units of one kind"),
        ("layer,weight_bits,latency_ms\n*,2,1\n", {"limit": "fast"}, "write a number with its unit"),
        ("layer,weight_bits,latency_ms\n*,2,-1\n", {}, "line 2: value '-1'"),
        ("layer,weight_bits,latency_ms\n*,2,nan\n", {}, "line 2: value 'nan'"),
        ("layer,weight_bits,latency_ms\n*,2,1e999999999\n", {}, "line 2: value"),
        ("layer,weight_bits,latency_ms\n*,2,\n", {}, "line 2: value"),
        ("layer,weight_bits,latency_ms\n*,2\n", {}, "line 2: fewer cells"),
        ("layer,weight_bits,latency_ms\n*,9,1\n", {}, "weight_bits '9'"),
        ("layer,weight_bits,act_bits,latency_ms\n*,4,64,1\n", {}, "act_bits '64'"),
        ("layer,weight_bits,latency_ms\n,4,1\n", {}, "names no layer"),
        ("kind,weight_bits,latency_ms\nnose,4,1\n", {}, "kind 'nose'"),
        ("shape,weight_bits,latency_ms\nbig,4,1\n", {}, "shape 'big'"),
        ("layer,latency_ms\n*,1\n", {}, "needs a column weight_bits"),
        ("layer,weight_bits,latency_ms,energy_mJ\n*,2,1,1\n", {}, "expected one column of values"),
        ("layer,name,weight_bits,ms\n*,*,2,1\n", {}, "two columns"),
        ("layer,weight_bits,value,unit\n*,2,1,ms\n*,4,1,mJ\n", {}, "no units of one kind"),
        ("", {}, "expected a header"),
        ("layer,weight_bits,latency_ms\n", {}, "at least one line"),
    ],
)  # fmt: skip
def test_tables_that_say_nothing_are_refused(tmp_path, text, options, message):
    with pytest.raises(BudgetError, match=message) as caught:
        table(tmp_path, text, **options)
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value) or "largest" in str(caught.value)


def test_rows_that_disagree_are_refused(tmp_path):
    found = table(tmp_path, "layer,weight_bits,latency_ms\n*,2,1\n*,2,2\n*,4,1\n")
    with pytest.raises(BudgetError, match=r"disagree about blocks.0.qkv at w2 \(1 and 2 ms\)"):
        values(found)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(BudgetError, match="no such file"):
        read_cost_table(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(BudgetError, match="cannot be read"):
        read_cost_table(tmp_path / "binary.csv")


def test_damaged_tables_are_read_or_refused(tmp_path):
    good = (
        b"# limit: 5 ms\nlayer,shape,weight_bits,act_bits,latency_ms\n*,,2,,1.5\nqkv,8x8,4,8,2\n*,,4,,2.5\n"
    )
    rng = np.random.default_rng(0)
    path = tmp_path / "table.csv"
    for _ in range(500):
        bad = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            bad[rng.integers(len(bad))] = rng.integers(256)
        path.write_bytes(bytes(bad))
        try:
            read_cost_table(path).integers(PROFILE.layers, PROFILE.options, EVERYTHING)
        except BudgetError as err:
            assert "\n" not in str(err)


def test_a_table_survives_json(tmp_path):
    text = "layer,kind,shape,weight_bits,act_bits,latency_ms\n*,,,2,,0.1\n,fc1,8x8,4,8,2.5\nqkv,,,4,32,3\n"
    found = table(tmp_path, text)
    assert CostTable.from_json(found.to_json()) == found
