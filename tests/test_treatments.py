"""Quantizers of activations: what holds for every one in the table, and values worked out by hand."""

import numpy as np
import pytest
import torch
from plugins import install

from lampq.core.treatments import QUANTIZERS, for_role, rule_of
from lampq.core.treatments.choice import best_rule
from lampq.core.treatments.focus import FocusGrid
from lampq.core.treatments.grouped_grid import GroupedGrid
from lampq.core.treatments.log_grid import LogGrid
from lampq.core.treatments.noise_grid import NoiseGrid
from lampq.core.treatments.roles import INPUT, KEYS, PROBABILITIES, ROLES, VALUES
from lampq.core.treatments.seen import Seen
from lampq.core.treatments.twin import TwinGrid
from lampq.core.values.activation_grid import ActivationGrid, TokenGrid
from lampq.core.values.activation_rule import SiteAxes
from lampq.core.values.errors import RecordError
from lampq.core.values.fitted import Fitted

SAMPLES, HEADS, TOKENS, CHANNELS = 3, 2, 5, 4


def seen(role, seed=0, **changes):
    """A site whose values are as its role has them."""
    rng = np.random.default_rng(seed)
    if role == INPUT:
        values, axes = rng.normal(size=(SAMPLES, TOKENS, CHANNELS)), SiteAxes()
    else:
        width = TOKENS if role == PROBABILITIES else CHANNELS
        values = rng.normal(size=(SAMPLES * HEADS, TOKENS, width))
        axes = SiteAxes(sums=-2 if role in (KEYS, VALUES, "right") else -1, rows=HEADS)
        if role == KEYS:
            values = values.transpose(0, 2, 1)
        if role == PROBABILITIES:
            values = np.exp(2 * values) / np.exp(2 * values).sum(-1, keepdims=True)
    values = values.astype(np.float32)
    gradients = rng.normal(size=(2, *values.shape)).astype(np.float32)
    record = {"name": f"m@{role}", "role": role, "values": values, "samples": SAMPLES, "axes": axes}
    return Seen(**{**record, "gradients": gradients, **changes})


CASES = [(role, q) for role in sorted(ROLES) for q in for_role(role)]
IDS = [f"{role}-{q.name}" for role, q in CASES]


@pytest.mark.parametrize(("role", "quantizer"), CASES, ids=IDS)
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_every_quantizer_is_the_same_in_numpy_and_torch_and_after_a_file(role, quantizer, bits):
    site = seen(role)
    rules = list(quantizer.candidates(site, bits))
    assert rules
    for rule in rules:
        rounded = rule.apply(site.values, site.axes)
        assert rounded.shape == site.values.shape and rounded.dtype == np.float32 and rule.bits == bits
        tensor = rule.apply(torch.from_numpy(site.values), site.axes, torch).numpy()
        np.testing.assert_allclose(tensor, rounded, rtol=2e-6, atol=1e-7)
        fitted = Fitted.from_json(rule.fitted().to_json())
        assert fitted == rule.fitted() and fitted.tag == quantizer.name
        np.testing.assert_array_equal(rule_of(fitted).apply(site.values, site.axes), rounded)


@pytest.mark.parametrize(("role", "quantizer"), CASES, ids=IDS)
def test_more_bits_lose_less_and_eight_hardly_anything(role, quantizer):
    site = seen(role)
    errors = []
    for bits in (2, 4, 8):
        rules = quantizer.candidates(site, bits)
        errors.append(min(np.abs(r.apply(site.values, site.axes) - site.values).mean() for r in rules))
    spread = np.abs(site.values).mean()
    assert errors[0] > errors[1] >= errors[2]
    # Powers of two are no nearer to each other however many there are.
    assert errors[2] < (0.2 if quantizer.name == "log2" else 0.05) * spread


@pytest.mark.parametrize(("role", "quantizer"), CASES, ids=IDS)
def test_a_width_is_so_many_values_per_scale(role, quantizer):
    site = seen(role)
    for rule in quantizer.candidates(site, 2):
        if isinstance(rule, NoiseGrid) and rule.subtract:
            continue
        rounded = rule.apply(site.values, site.axes)
        # Lines along the summed axis have one scale in all of them.
        for line in np.moveaxis(rounded, site.axes.sums, -1).reshape(-1, rounded.shape[site.axes.sums]):
            assert len(np.unique(np.round(line, 5))) <= 4


@pytest.mark.parametrize(("role", "quantizer"), CASES, ids=IDS)
def test_larger_values_round_to_no_smaller_ones(role, quantizer):
    site = seen(role)
    for rule in quantizer.candidates(site, 3):
        if isinstance(rule, NoiseGrid):
            continue
        rounded = rule.apply(site.values, site.axes)
        before = np.moveaxis(site.values, site.axes.sums, -1).reshape(-1, site.values.shape[site.axes.sums])
        after = np.moveaxis(rounded, site.axes.sums, -1).reshape(before.shape)
        if isinstance(rule, GroupedGrid) and rule.tag == "head_channel":
            continue
        order = before.argsort(axis=-1)
        assert (np.diff(np.take_along_axis(after, order, -1)) >= -1e-6).all()


def test_values_by_hand():
    x = np.array([[0.0, 0.1, 0.3, 0.9]], np.float32)
    powers = LogGrid(tag="log2", bits=2, scale=1.0)
    assert powers.apply(x).tolist() == [[0.125, 0.125, 0.25, 1.0]]
    assert LogGrid(tag="log2", bits=2, scale=1.0, zero=True).apply(x).tolist() == [[0.0, 0.0, 0.25, 1.0]]
    # 0 and 0.05 on one grid, 0 and 0.5 on the other.
    twin = TwinGrid(bits=2, first=0.05, second=0.5)
    np.testing.assert_allclose(twin.apply(x), [[0.0, 0.05, 0.5, 0.5]])
    np.testing.assert_allclose(FocusGrid(bits=2, low=0.1, high=0.4).apply(x), [[0.1, 0.1, 0.3, 0.4]])
    token = TokenGrid(bits=2, share=0.5).apply(np.array([[0.0, 1.0, 3.0, 6.0]], np.float32))
    assert token.tolist() == [[0.0, 1.0, 3.0, 3.0]]
    head = GroupedGrid(tag="head", bits=2, heads=2, low=np.zeros(2, np.float32), high=np.float32([3, 30]))
    both = np.array([[[4.0]], [[4.0]]], np.float32)
    assert head.apply(both, SiteAxes(rows=2)).ravel().tolist() == [3.0, 0.0]


def test_the_same_values_round_differently_with_noise_and_alike_without():
    same = np.full((1, 64, 64), 0.3, np.float32)
    grid = ActivationGrid.from_range(0.0, 3.0, 2)
    noisy = NoiseGrid(grid=grid, amplitude=1.0, subtract=False).apply(same)
    assert len(np.unique(noisy)) == 2
    assert noisy.mean() == pytest.approx(0.3, abs=0.01)
    off = NoiseGrid(grid=grid, amplitude=1.0, subtract=True).apply(same) - same
    assert abs(off.mean()) < 0.01 and np.abs(off).max() <= 0.5


def test_noise_goes_by_the_place_in_a_sample_not_in_the_batch():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(3, 5, 4)).astype(np.float32)
    rule = NoiseGrid(grid=ActivationGrid.from_range(-3, 3, 3), amplitude=1.0, subtract=True)
    expected = rule.apply(samples)
    after_another = rule.apply(samples.reshape(15, 4), SiteAxes(rows=5))
    inside_tokens = rule.apply(samples.transpose(1, 0, 2).reshape(15, 4), SiteAxes(rows=5, inner=1))
    np.testing.assert_array_equal(after_another.reshape(3, 5, 4), expected)
    np.testing.assert_array_equal(inside_tokens.reshape(5, 3, 4).transpose(1, 0, 2), expected)


def test_what_counts_is_the_error_that_adds_up():
    values = np.full((1, 8, 2), 0.4, np.float32)
    gradients = np.ones((1, 1, 8, 2), np.float32)
    site = Seen(name="x", role=INPUT, values=values, samples=1, gradients=gradients)
    grid = ActivationGrid.from_range(0.0, 3.0, 2)
    # All 16 values lose 0.4: (16 * 0.4)^2 / 2.
    assert site.loss(grid) == pytest.approx(6.4**2 / 2)
    assert site.loss(NoiseGrid(grid=grid, amplitude=1.0, subtract=False)) < 1


def test_the_kind_is_chosen_by_the_loss():
    site = seen(PROBABILITIES)
    best = best_rule(site, 3)
    every = [rule for q in for_role(PROBABILITIES) for rule in q.candidates(site, 3)]
    assert site.loss(best) == min(map(site.loss, every))
    assert best_rule(site, 3, ["uniform"]).fitted().tag == "uniform"


def test_bad_input_is_named_in_one_line():
    with pytest.raises(RecordError, match=r"quantizer 'sparkle' is none of uniform, token"):
        rule_of(Fitted(tag="sparkle", bits=4))
    with pytest.raises(RecordError, match="log2: scale should be a number"):
        rule_of(Fitted(tag="log2", bits=4))
    with pytest.raises(RecordError, match="head: low should be a row"):
        rule_of(Fitted(tag="head", bits=4, parameters={"heads": 2}))
    with pytest.raises(RecordError, match="9 activation bits"):
        rule_of(Fitted(tag="token", bits=9))
    with pytest.raises(RecordError, match="not finite"):
        Fitted(tag="token", bits=4, parameters={"share": float("nan")})
    with pytest.raises(RecordError, match="malformed quantizer"):
        Fitted.from_json({"quantizer": "log2"})
    with pytest.raises(RecordError, match="m@values: no values were seen"):
        seen(VALUES, values=np.zeros((0, 3), np.float32))
    with pytest.raises(RecordError, match="m@keys are not finite"):
        seen(KEYS, values=np.full((6, 4, 5), np.nan, np.float32))
    with pytest.raises(RecordError, match=r"m@probabilities: quantizer log2 is for probabilities.*-"):
        best_rule(seen(PROBABILITIES, values=seen(VALUES).values), 4, ["log2"])
    with pytest.raises(RecordError, match="none of the quantizers log2 rounds keys"):
        best_rule(seen(KEYS), 4, ["log2"])
    grid = GroupedGrid(tag="head", bits=2, heads=3, low=np.zeros(3), high=np.ones(3))
    with pytest.raises(RecordError, match="3 heads x 1 channels meets 2 heads"):
        grid.apply(seen(VALUES).values, SiteAxes(rows=2))


@pytest.mark.parametrize("role", sorted(ROLES))
@pytest.mark.parametrize("constant", [0.0, 0.25])
def test_constant_sites_have_a_rule_that_keeps_them(role, constant):
    site = seen(role)
    flat = np.full(site.values.shape, constant, np.float32)
    rule = best_rule(seen(role, values=flat), 4)
    np.testing.assert_allclose(rule.apply(flat, site.axes), flat, atol=0.02)


def test_a_package_adds_a_quantizer_by_an_entry_point(tmp_path, monkeypatch):
    source = (
        "from lampq.core.treatments.quantizer import Quantizer\n"
        "from lampq.core.values.activation_grid import TokenGrid\n"
        "HALF = Quantizer(name='half', roles=frozenset(['input']),\n"
        "    candidates=lambda seen, bits: [TokenGrid(bits=bits, share=0.5)],\n"
        "    load=lambda fitted: TokenGrid(bits=fitted.bits, share=0.5))\n"
    )
    entries = {"lampq.quantizers": {"half": "half_package:HALF"}}
    install(monkeypatch, tmp_path, "half", entries, {"half_package": source})
    assert rule_of(Fitted(tag="half", bits=3)) == TokenGrid(bits=3, share=0.5)
    assert "half" in QUANTIZERS.names()
