"""Sweeps under further limits and over pairs of widths, against brute force."""

import csv
import itertools

import numpy as np
import pytest
from records import make_profile, pair_profile

import lampq
from lampq.cli import main
from lampq.core.allocating.limits import bit_operations
from lampq.core.measuring.interaction import profile_interaction
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError
from lampq.verbs.sweep import sweep, write_csv

SMALL = {"kinds": ("patch_embed", "qkv", "fc1", "head"), "widths": (2, 3, 4, 8)}


def unbeaten(profile, use, extra=lambda choice: True):
    """(use, damage) of the plans that no other beats, by trying every plan."""
    best = {}
    for choice in itertools.product(range(len(profile.options)), repeat=len(profile.layers)):
        if extra(choice):
            amount = sum(int(use[i, j]) for i, j in enumerate(choice))
            damage = sum(profile.kl[i, j] for i, j in enumerate(choice))
            best[amount] = min(best.get(amount, np.inf), damage)
    points, least = [], np.inf
    for amount in sorted(best):
        if best[amount] < least * (1 - 1e-12):
            least = best[amount]
            points.append((amount, least))
    return points


@pytest.mark.parametrize("against", ["bits", "bytes", "bops"])
def test_every_axis_gives_the_curve_of_brute_force(against):
    profile = make_profile(1, **SMALL)
    use = {
        "bits": profile.sizes[:, None] * profile.weight_bits,
        "bytes": profile.payload_bytes,
        "bops": bit_operations(profile),
    }[against]
    points = sweep(profile, mode="kl", against=against)
    expected = unbeaten(profile, use)
    assert [p.predicted_kl for p in points] == pytest.approx([damage for _, damage in expected])
    if against == "bytes":
        assert [p.size_bytes - profile.rest_bytes for p in points] == [amount for amount, _ in expected]
    if against == "bops":
        assert [p.bops for p in points] == [amount for amount, _ in expected]


def test_pairs_are_swept_against_bit_operations(tmp_path):
    profile = pair_profile(2)
    points = sweep(profile, mode="kl")
    expected = unbeaten(profile, bit_operations(profile))
    assert [p.bops for p in points] == [amount for amount, _ in expected]
    assert [p.predicted_kl for p in points] == pytest.approx([damage for _, damage in expected])
    write_csv(profile, points, tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert int(rows[0]["bops"]) == points[0].bops
    assert rows[0]["blocks.1.qkv"] == "w2a4"


@pytest.mark.parametrize("mode", ["kl", "superposition"])
def test_every_plan_of_a_limited_sweep_keeps_the_limits(mode):
    profile = make_profile(4, **SMALL)
    most = int(bit_operations(profile)[:, 2].sum())
    budget = Budget(max_bops=most, at_most=("2@4+",), ceilings=("head=4",))
    points = sweep(profile, mode=mode, budget=budget, pins=["qkv=4"])
    for point in points:
        assert point.bops <= most
        assert sum(width >= 4 for width in point.widths) <= 2
        assert point.widths[3] <= 4
        assert point.widths[1] == 4
    damages = [point.predicted_kl for point in points]
    assert damages == sorted(damages, reverse=True)
    # The last point is the best that the limits allow.
    widths = np.array(SMALL["widths"])
    interaction = profile_interaction(profile)
    best = min(
        float(interaction.predict(np.array(c)))
        if mode == "superposition"
        else sum(profile.kl[i, j] for i, j in enumerate(c))
        for c in itertools.product(range(4), repeat=4)
        if bit_operations(profile)[range(4), c].sum() <= most
        and (widths[list(c)] >= 4).sum() <= 2
        and widths[c[3]] <= 4
        and widths[c[1]] == 4
    )
    assert damages[-1] == pytest.approx(best, rel=1e-6)


def test_rules_about_single_layers_keep_the_curve_complete():
    profile = make_profile(1, **SMALL)
    points = sweep(profile, mode="kl", budget=Budget(floors=("qkv=3",), ceilings=("fc1=4",)))
    use = profile.sizes[:, None] * profile.weight_bits
    expected = unbeaten(profile, use, lambda choice: choice[1] >= 1 and choice[2] <= 2)
    assert [p.predicted_kl for p in points] == pytest.approx([damage for _, damage in expected])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"against": "taste"}, "choose bits, bytes, bops"), ({"budget": Budget(max_kl=1)}, "largest KL"),
     ({"budget": Budget(max_bops=1)}, "floor")],
)  # fmt: skip
def test_impossible_sweeps_are_refused(options, message):
    with pytest.raises(BudgetError, match=message):
        sweep(make_profile(**SMALL), **options)


def test_the_command_line_sweeps_under_limits(tmp_path, capfd):
    make_profile(**SMALL).write(tmp_path / "profile.json")
    words = [
        "sweep",
        tmp_path / "profile.json",
        "--at-most",
        "1@8",
        "--against",
        "bytes",
        "--mode",
        "kl",
        "--quiet",
    ]
    assert main([*map(str, words), "-o", str(tmp_path / "p.csv")]) == 0
    rows = list(csv.reader((tmp_path / "p.csv").read_text().splitlines()))[1:]
    assert max(row[4:].count("8") for row in rows) == 1
    words = ["sweep", tmp_path / "profile.json", "--max-latency", "5ms", "-o", tmp_path / "q.csv"]
    assert main([str(word) for word in words]) == 2
    assert "--latency table.csv" in capfd.readouterr().err
    assert lampq.sweep(make_profile(**SMALL), mode="kl")[0].input_widths == ()
