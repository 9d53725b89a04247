import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_model import NumpyModel

from lampq.core.measuring.encoding import encoder, with_rounding
from lampq.core.measuring.measure import measure_plan
from lampq.core.measuring.moments import input_moments
from lampq.core.quantizing.coding import Coding
from lampq.core.quantizing.lanes import Lanes, descend, pass_on, refit
from lampq.core.quantizing.output_metric import OutputMetric
from lampq.core.quantizing.quantizer import as_rows, quantize
from lampq.core.quantizing.rounding import InputRounding, round_to_inputs
from lampq.core.values.errors import RecordError
from lampq.core.values.layer import Layer


def inputs_of(seed, columns, samples=200):
    """Correlated inputs with a mean, as layers after a normalization have them."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(samples, 3)) @ rng.normal(size=(3, columns))
        + 0.3 * rng.normal(size=(samples, columns))
        + 1
    )


def output_error(quantized, rows, inputs):
    return np.square(inputs @ (quantized.dequantized() - rows).T.astype(np.float64)).mean(axis=0)


@given(
    st.integers(0, 10_000),
    st.integers(1, 8),
    st.sampled_from(["auto", "mid_rise", "mid_tread", "narrow"]),
    st.integers(1, 150),
)
@settings(max_examples=40, deadline=None)
def test_no_row_has_more_output_error_than_rounding_to_nearest(seed, bits, grid, columns):
    rows = np.random.default_rng(seed).normal(size=(5, columns)).astype(np.float32)
    inputs = inputs_of(seed, columns)
    moment = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    ours, nearest = round_to_inputs(rows, bits, moment, grid=grid), quantize(rows, bits, grid=grid)
    assert (output_error(ours, rows, inputs) <= output_error(nearest, rows, inputs) * (1 + 1e-4) + 1e-9).all()
    assert (ours.step, ours.offset, ours.bits) == (nearest.step, nearest.offset, bits)
    assert ours.codes.max() < 1 << bits
    if grid == "narrow" and bits > 2:
        assert ours.codes.min() >= 1
    np.testing.assert_allclose(ours.squared_error, np.square(ours.dequantized() - rows).sum(1), rtol=1e-4)


def test_correlated_inputs_lose_several_times_less():
    rows = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    inputs = inputs_of(1, 96, 2000)
    moment = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    for bits in (2, 3, 4):
        ours = output_error(round_to_inputs(rows, bits, moment), rows, inputs).sum()
        assert ours < 0.2 * output_error(quantize(rows, bits), rows, inputs).sum()


def test_no_single_code_improves_the_output_much():
    """Coordinate descent has all but converged; exhaustion over single codes at the final scale agrees."""
    rows = np.random.default_rng(2).normal(size=(4, 20)).astype(np.float32)
    inputs = inputs_of(3, 20)
    moment = inputs.T @ inputs / len(inputs)
    found = round_to_inputs(rows, 2, moment.astype(np.float32))
    levels = found.scale[:, None] * (found.step * np.arange(4) - found.offset)
    error = output_error(found, rows, inputs)
    values = found.dequantized().astype(np.float64)
    for row, column in np.ndindex(rows.shape):
        for level in levels[row]:
            other = values[row].copy()
            other[column] = level
            difference = other - rows[row]
            assert difference @ moment @ difference >= 0.9 * error[row]


def test_uncorrelated_inputs_of_equal_power_leave_rounding_to_nearest():
    rows = np.random.default_rng(4).normal(size=(8, 40)).astype(np.float32)
    ours, nearest = round_to_inputs(rows, 3, np.eye(40, dtype=np.float32)), quantize(rows, 3)
    assert ours.squared_error.sum() == pytest.approx(nearest.squared_error.sum(), rel=0.02)


def test_inputs_that_are_always_zero_change_nothing():
    rows = np.random.default_rng(5).normal(size=(3, 10)).astype(np.float32)
    found = round_to_inputs(rows, 4, np.zeros((10, 10), dtype=np.float32))
    np.testing.assert_array_equal(found.codes, quantize(rows, 4).codes)
    moment = np.zeros((10, 10), dtype=np.float32)
    moment[:4, :4] = np.eye(4) + 1
    assert np.isfinite(round_to_inputs(rows, 4, moment).dequantized()).all()


def test_moments_are_those_of_the_layers_inputs():
    model = NumpyModel.random(0)
    batch = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    moments = input_moments(model, model.layers(), batch)
    for name, values, _ in model.taps(batch):
        np.testing.assert_allclose(moments[name], values.T @ values / 50, rtol=1e-4, atol=1e-5)
    assert set(moments) == {layer.name for layer in model.layers()}


class Patches:
    """The inputs of a patch embedding and of a convolution with overlap."""

    def __init__(self, images, positions):
        self._images, self._positions = images, positions
        self.input_specs = ()

    def taps(self, batch):
        yield "patch", self._images, self._positions


def test_patches_are_unfolded_and_overlapping_convolutions_left_out():
    rng = np.random.default_rng(6)
    weight, images = (
        rng.normal(size=(5, 3, 2, 2)).astype(np.float32),
        rng.normal(size=(4, 3, 6, 4)).astype(np.float32),
    )
    layer = Layer.from_weight("patch", weight, kind="patch_embed", channel_axis=0)
    moment = input_moments(Patches(images, 6), [layer], images)["patch"]
    patches = [
        images[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
        for n in range(4)
        for i in range(3)
        for j in range(2)
    ]
    expected = np.mean([np.outer(patch, patch) for patch in patches], axis=0)
    np.testing.assert_allclose(moment, expected, rtol=1e-4, atol=1e-6)
    assert input_moments(Patches(images, 15), [layer], images) == {}


def test_a_model_is_rounded_layer_by_layer_with_less_damage():
    model = NumpyModel.random(3, width=24)
    batch = np.random.default_rng(7).normal(size=(200, 24)).astype(np.float32) + 0.5
    widths = dict.fromkeys((layer.name for layer in model.layers()), 3)
    ours = measure_plan(with_rounding(model, "inputs", None, batch), widths, batch)
    assert ours < 0.8 * measure_plan(model, widths, batch)


def test_layers_without_a_moment_round_to_nearest():
    model = NumpyModel.random(3, width=24).with_coding(Coding(moments={}))
    name = model.layers()[0].name
    np.testing.assert_array_equal(
        encoder(model, name, 0)(2).dequantized(), quantize(model.weight(name), 2).dequantized()
    )


@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from(["auto", "mid_tread", "narrow"]))
@settings(max_examples=25)
def test_blocks_lose_less_still(seed, bits, grid):
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(4, 64)) * np.exp(rng.normal(size=(4, 64)))).astype(np.float32)
    inputs = inputs_of(seed, 64)
    moment = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    ours = round_to_inputs(rows, bits, moment, grid=grid, block=16)
    nearest = quantize(as_rows(rows, 0, 16), bits, grid=grid)
    assert ours.scale.shape == (16,)
    assert ours.codes.shape == (16, 16)

    def error(quantized):
        difference = quantized.dequantized().reshape(4, 64) - rows
        return np.square(inputs @ difference.T.astype(np.float64)).mean(axis=0)

    assert (error(ours) <= error(nearest) * (1 + 1e-4) + 1e-9).all()


def test_scales_of_blocks_are_refitted_to_the_least_output_error():
    """A last refit by the closed form, least squares over all scales of a row, gains little."""
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(3, 32)).astype(np.float32)
    inputs = inputs_of(9, 32)
    moment = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    found = round_to_inputs(rows, 3, moment, block=8)
    integers = found.integers().astype(np.float64).reshape(3, 4, 8)
    least = ours = 0.0
    for row in range(3):
        design = np.zeros((32, 4))
        for block in range(4):
            design[8 * block : 8 * block + 8, block] = integers[row, block]
        best = np.linalg.solve(design.T @ moment @ design, design.T @ moment @ rows[row])
        difference = design @ best - rows[row]
        least += difference @ moment @ difference
        difference = found.dequantized().reshape(3, 32)[row] - rows[row]
        ours += difference @ moment @ difference
    assert ours <= 1.2 * least


def test_too_large_moments_are_refused(monkeypatch):
    model = NumpyModel.random(0)
    monkeypatch.setattr("lampq.core.measuring.moments._MOST_BYTES", 100)
    with pytest.raises(RecordError, match="--rounding nearest"):
        input_moments(model, model.layers(), np.ones((2, 8), np.float32))


def test_blocks_that_do_not_divide_are_refused():
    with pytest.raises(RecordError, match="do not divide"):
        round_to_inputs(np.ones((2, 10), np.float32), 3, np.eye(10, dtype=np.float32), block=4)


def moment_of(seed, columns):
    inputs = inputs_of(seed, columns)
    return (inputs.T @ inputs / len(inputs)).astype(np.float32)


def test_several_widths_at_once_are_as_good_as_one_by_one():
    rows = np.random.default_rng(11).normal(size=(40, 150)).astype(np.float32)
    moment, widths = moment_of(12, 150), (5, 2, 8, 3)
    for together, bits in zip(InputRounding(moment).quantize(rows, widths), widths, strict=True):
        alone = round_to_inputs(rows, bits, moment)
        assert (together.bits, together.grid) == (bits, alone.grid)
        # Products of other shapes round differently, which may turn a code that is on the edge.
        assert (together.codes != alone.codes).mean() < 0.01
        np.testing.assert_allclose(together.squared_error.sum(), alone.squared_error.sum(), rtol=0.01)


def test_rows_handled_in_parts_are_those_handled_together(monkeypatch):
    rows = np.random.default_rng(13).normal(size=(30, 70)).astype(np.float32)
    moment = moment_of(14, 70)
    whole = round_to_inputs(rows, 3, moment)
    monkeypatch.setattr("lampq.core.quantizing.rounding._SIDE_BY_SIDE", 1)
    monkeypatch.setattr("lampq.core.quantizing.rounding._FEWEST_LANES", 7)
    parts = round_to_inputs(rows, 3, moment)
    assert (whole.codes != parts.codes).mean() < 0.01
    np.testing.assert_allclose(whole.scale, parts.scale, rtol=0.02)


@pytest.mark.parametrize("columns", [1, 63, 200])
def test_the_metric_is_a_factor_of_the_damped_moment(columns):
    moment = moment_of(15, columns)
    metric = OutputMetric.from_moment(moment)
    damped = moment[np.ix_(metric.order, metric.order)] + metric.damping * np.eye(columns)
    np.testing.assert_allclose(metric.moment, damped, rtol=1e-5)
    assert (np.triu(metric.factor, 1) == 0).all()
    np.testing.assert_allclose(
        metric.factor.T @ (metric.pivots[:, None] * metric.factor), damped, rtol=1e-3, atol=1e-3
    )
    errors = np.random.default_rng(16).normal(size=(9, columns)).astype(np.float32)
    exact = np.einsum("kn,nm,km->k", errors, damped - metric.damping * np.eye(columns), errors)
    np.testing.assert_allclose(metric.exact(errors), exact, rtol=1e-3)
    terms = metric.pivots[:, None] * (metric.factor @ errors.T)
    np.testing.assert_allclose(metric.slope(terms), errors @ damped, rtol=1e-2, atol=1e-2)
    np.testing.assert_array_equal(metric.may_not_exceed(errors, exact * 1.01), np.arange(9))
    assert len(metric.may_not_exceed(errors, exact * 0.98)) == 0


@pytest.mark.parametrize("block", [130, 26])
def test_passes_know_the_error_that_they_leave(block):
    """Energy and slope, kept up to date move by move, are those of the codes and scales at the end."""
    rows = np.random.default_rng(17).normal(size=(20, 130)).astype(np.float32)
    metric = OutputMetric.from_moment(moment_of(18, 130))
    nearest = [quantize(rows.reshape(-1, block), bits) for bits in (2, 4)]
    lanes = Lanes.from_nearest(metric, rows, nearest, narrow=False)
    pull, everyone = lanes.weight[:20] @ metric.moment, np.arange(40)
    slope = pass_on(lanes)
    before = slope.energy.copy()
    for _ in range(3):
        descend(lanes, slope, everyone)
        refit(lanes, slope, pull, everyone)
    assert (slope.energy <= before).all()
    assert slope.energy.sum() < 0.97 * before.sum()
    errors = lanes.errors().astype(np.float64)
    np.testing.assert_allclose(slope.values, errors @ metric.moment, rtol=1e-2, atol=2e-3)
    np.testing.assert_allclose(
        slope.energy, np.einsum("kn,nm,km->k", errors, metric.moment, errors), rtol=1e-3
    )


def test_descent_ends_where_no_single_code_improves():
    rows = np.random.default_rng(19).normal(size=(6, 90)).astype(np.float32)
    metric = OutputMetric.from_moment(moment_of(20, 90))
    lanes = Lanes.from_nearest(metric, rows, [quantize(rows, 3)], narrow=False)
    slope, active = pass_on(lanes), np.arange(6)
    for _ in range(30):
        active = descend(lanes, slope, active)
    assert len(active) == 0
    errors, moment = lanes.errors().astype(np.float64), metric.moment.astype(np.float64)
    energy = np.einsum("kn,nm,km->k", errors, moment, errors)
    for move in (-1, 1):
        inside = (lanes.codes + move >= lanes.lowest) & (lanes.codes + move <= lanes.highest)
        step = move * lanes.unit
        after = energy[:, None] + 2 * step * (errors @ moment) + step**2 * np.diag(moment)
        assert (after[inside] >= (0.999 * energy[:, None] * np.ones_like(after))[inside]).all()


def test_widths_that_are_going_to_be_asked_for_are_coded_together(monkeypatch):
    model = NumpyModel.random(3, width=24)
    batch = np.random.default_rng(7).normal(size=(200, 24)).astype(np.float32)
    model, name = with_rounding(model, "inputs", None, batch), model.layers()[0].name
    calls, exact = [], InputRounding.quantize

    def counted(self, rows, widths, **options):
        calls.append(tuple(widths))
        return exact(self, rows, widths, **options)

    monkeypatch.setattr(InputRounding, "quantize", counted)
    encode = encoder(model, name, 0, (2, 3, 4))
    assert [encode(bits).bits for bits in (3, 2, 4, 3)] == [3, 2, 4, 3]
    assert calls == [(3, 2, 4)]
    # Others are coded when they are asked for, and nothing twice, by whomever.
    assert encoder(model, name, 0, (2, 5))(5).bits == 5
    assert encoder(model, name, 0)(4).bits == 4
    assert calls == [(3, 2, 4), (5,)]


def test_codes_that_are_not_kept_are_still_chosen_together(monkeypatch):
    monkeypatch.setattr("lampq.core.quantizing.coding._KEPT_BYTES", 0)
    model = NumpyModel.random(3, width=24)
    batch = np.random.default_rng(7).normal(size=(200, 24)).astype(np.float32)
    model, name = with_rounding(model, "inputs", None, batch), model.layers()[0].name
    encode = encoder(model, name, 0, (2, 3))
    assert encode(2) is encode(2)
    assert encode(3) is encode(3)
