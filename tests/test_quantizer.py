import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampq.core.quantizing.quantizer import GRIDS, as_rows, from_rows, quantize
from lampq.core.values.errors import RecordError


def exhaustive_error(row, bits, grid):
    """Least squared error over 3,000 steps, by plain rounding: the oracle of the search."""
    half = 2 ** (bits - 1)
    largest = np.abs(row).max()
    steps = np.linspace(0.02, 1.2, 3000)[:, None] * largest / (half - 0.5 if grid == "mid_tread" else half)
    if grid == "mid_rise":
        value = (np.clip(np.floor(row / steps), -half, half - 1) + 0.5) * steps
    else:
        value = np.clip(np.rint(row / steps), -half, half - 1) * steps
    return ((value - row) ** 2).sum(axis=1).min()


def draw(name, rng, shape):
    return {
        "normal": lambda: rng.normal(size=shape),
        "heavy": lambda: rng.standard_t(4, size=shape),
        "laplace": lambda: rng.laplace(size=shape),
        "uniform": lambda: rng.uniform(-1, 1, size=shape),
    }[name]().astype(np.float32)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("distribution", ["normal", "heavy", "laplace", "uniform"])
def test_clipping_is_within_one_percent_of_the_exhaustive_optimum(distribution, bits, grid):
    rows = draw(distribution, np.random.default_rng(bits), (12, 512))
    best = sum(exhaustive_error(row.astype(np.float64), bits, grid) for row in rows)
    assert quantize(rows, bits, grid=grid).squared_error.sum() <= 1.01 * best


@given(
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([*GRIDS, "auto"]),
)
@settings(max_examples=150)
def test_codes_scales_and_errors_are_consistent(bits, channels, width, seed, grid):
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(channels, width)) * 10.0 ** rng.uniform(-6, 4)).astype(np.float32)
    result = quantize(rows, bits, grid=grid)
    assert result.codes.dtype == np.uint8
    assert result.codes.max(initial=0) < 2**bits
    assert (result.scale > 0).all()
    assert np.abs(result.integers().astype(int)).max() <= 128
    np.testing.assert_array_equal(
        result.integers().astype(int), result.codes.astype(int) * result.step - result.offset
    )
    true_error = ((result.dequantized().astype(np.float64) - rows) ** 2).sum(axis=1)
    np.testing.assert_allclose(
        result.squared_error, true_error, rtol=1e-3, atol=1e-12 * np.square(rows).sum()
    )


@given(st.integers(2, 7), st.integers(0, 2**32 - 1), st.integers(-10, 10))
@settings(max_examples=40)
def test_scaling_a_weight_scales_its_quantization(bits, seed, exponent):
    rows = np.random.default_rng(seed).normal(size=(3, 64)).astype(np.float32)
    # Powers of two change no digit, so nothing may come out differently.
    factor = np.float32(2.0**exponent)
    plain, scaled = quantize(rows, bits), quantize(rows * factor, bits)
    np.testing.assert_array_equal(scaled.codes, plain.codes)
    np.testing.assert_array_equal(scaled.scale, plain.scale * factor)
    np.testing.assert_allclose(scaled.squared_error, plain.squared_error * float(factor) ** 2, rtol=1e-9)


def test_more_bits_never_hurt():
    rows = draw("heavy", np.random.default_rng(0), (16, 256))
    errors = np.array([quantize(rows, bits).squared_error for bits in range(1, 9)])
    assert (np.diff(errors, axis=0) < 0).all()


def test_threads_do_not_change_the_result():
    rows = draw("normal", np.random.default_rng(0), (300, 700))
    one, two = quantize(rows, 3, threads=1), quantize(rows, 3, threads=2)
    np.testing.assert_array_equal(one.codes, two.codes)
    np.testing.assert_array_equal(one.scale, two.scale)


def test_a_sparse_weight_gets_a_grid_with_zero():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(8, 512)) * (rng.random((8, 512)) < 0.1)).astype(np.float32)
    result = quantize(rows, 3)
    assert result.grid == "mid_tread"
    assert result.squared_error.sum() < quantize(rows, 3, grid="mid_rise").squared_error.sum()


@pytest.mark.parametrize(("bits", "excess"), [(3, 1.01), (4, 1.01), (8, 1.05)])
@pytest.mark.parametrize("distribution", ["normal", "heavy", "uniform"])
def test_the_narrow_grid_is_symmetric_and_clips_near_the_exhaustive_optimum(distribution, bits, excess):
    rows = draw(distribution, np.random.default_rng(bits), (12, 512))
    result = quantize(rows, bits, grid="narrow")
    top = 2 ** (bits - 1) - 1
    assert result.integers().min() >= -top
    np.testing.assert_array_equal(quantize(-rows, bits, grid="narrow").integers(), -result.integers())
    steps = np.linspace(0.02, 1.2, 3000)[:, None] * np.abs(rows).max(axis=1)[:, None, None] / top
    levels = np.clip(np.rint(rows[:, None, :] / steps), -top, top) * steps
    best = ((levels - rows[:, None, :]) ** 2).sum(axis=2).min(axis=1).sum()
    assert result.squared_error.sum() <= excess * best


def test_the_narrow_grid_keeps_all_four_codes_of_two_bits():
    rows = draw("normal", np.random.default_rng(0), (4, 256))
    narrow, full = quantize(rows, 2, grid="narrow"), quantize(rows, 2, grid="mid_tread")
    np.testing.assert_array_equal(narrow.codes, full.codes)
    np.testing.assert_array_equal(narrow.scale, full.scale)


def test_rows_of_zeros_and_single_values():
    rows = np.array([[0.0, 0.0, 0.0], [2.0, 2.0, -2.0]], dtype=np.float32)
    result = quantize(rows, 2, grid="mid_tread")
    np.testing.assert_array_equal(result.dequantized()[0], 0)
    np.testing.assert_allclose(quantize(rows[1:], 1).dequantized(), rows[1:], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_round_trip(axis):
    weight = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    rows = as_rows(weight, axis)
    assert rows.shape == (weight.shape[axis], weight.size // weight.shape[axis])
    np.testing.assert_array_equal(from_rows(rows, weight.shape, axis), weight)


@pytest.mark.parametrize(
    ("shape", "bits", "grid"), [((0, 3), 4, "auto"), ((3,), 4, "auto"), ((2, 2), 9, "auto"), ((2, 2), 4, "x")]
)
def test_impossible_requests_are_refused(shape, bits, grid):
    with pytest.raises(RecordError):
        quantize(np.ones(shape, dtype=np.float32), bits, grid=grid)
