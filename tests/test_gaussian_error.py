"""Closed forms against published values, quadrature and simulation."""

import numpy as np
import pytest

from lampq.core.quantizing.quantizer import quantize
from lampq.core.values.errors import RecordError
from lampq.core.values.gaussian_error import (
    PAPER_ERRORS,
    WIDTHS,
    error_table,
    expected_squared_error,
    gaussian_mse,
    mid_rise_levels,
    optimal_half_range,
    product_error,
    quantizer_moments,
    unclipped_levels,
)

OPTIMAL_MSE = (0.3634, 0.1188, 0.03744, 0.01154, 3.495e-3, 1.040e-3, 3.043e-4, 8.769e-5)
OPTIMAL_RANGE = (1.596, 1.991, 2.344, 2.682, 3.010, 3.330, 3.640, 3.938)


def quadrature(levels, function):
    """Midpoint rule for E[function(x, Q(x))] on a standard normal: shares nothing with the closed form."""
    x = np.linspace(-9, 9, 2_000_001)
    x = (x[1:] + x[:-1]) / 2
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (18 / 2_000_000)
    edges = (levels[1:] + levels[:-1]) / 2
    return float((function(x, levels[np.searchsorted(edges, x)]) * density).sum())


@pytest.mark.parametrize("bits", WIDTHS)
def test_optimal_quantizer_of_a_gaussian_has_the_known_error_and_range(bits):
    assert gaussian_mse(bits) == pytest.approx(OPTIMAL_MSE[bits - 1], rel=5e-4)
    assert optimal_half_range(bits) == pytest.approx(OPTIMAL_RANGE[bits - 1], abs=6e-4)


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("half_range", [0.7, 2.0, 4.5])
def test_error_at_any_clip_point_equals_quadrature(bits, half_range):
    expected = quadrature(mid_rise_levels(bits, half_range), lambda x, q: (q - x) ** 2)
    assert gaussian_mse(bits, half_range) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bits", [2, 4])
def test_moments_hold_on_asymmetric_grids(bits):
    # Whole numbers: zero is a level, and there is one more below it than above.
    levels = (np.arange(1 << bits) - (1 << bits) // 2) * (2 * 2.2 / (1 << bits))
    square, cross = quantizer_moments(levels)
    assert square == pytest.approx(quadrature(levels, lambda x, q: q * q), rel=1e-5)
    assert cross == pytest.approx(quadrature(levels, lambda x, q: q * x), rel=1e-5)


@pytest.mark.parametrize("bits", WIDTHS)
def test_product_error_at_the_optimum_is_two_e_minus_e_squared(bits):
    e = gaussian_mse(bits)
    assert product_error(mid_rise_levels(bits, optimal_half_range(bits))) == pytest.approx(
        2 * e - e * e, rel=1e-4
    )


@pytest.mark.parametrize("bits", [1, 3])
def test_product_error_equals_simulation(bits):
    rng = np.random.default_rng(1)
    levels = unclipped_levels(bits, 2.9)
    w, x = rng.normal(size=(2, 2_000_000))
    edges = (levels[1:] + levels[:-1]) / 2
    qw, qx = levels[np.searchsorted(edges, w)], levels[np.searchsorted(edges, x)]
    assert product_error(levels) == pytest.approx(((qw * qx - w * x) ** 2).mean(), rel=0.02)


def test_an_unclipped_grid_explains_the_published_table():
    np.testing.assert_allclose(error_table("minmax(2.96)"), PAPER_ERRORS, rtol=0.035)
    np.testing.assert_array_equal(error_table("paper"), PAPER_ERRORS)


@pytest.mark.parametrize("rule", ["paper", "mse", "minmax(2.5)"])
def test_error_tables_start_at_one_and_fall(rule):
    table = error_table(rule)
    assert table[0] == 1
    assert (np.diff(table) < 0).all()


@pytest.mark.parametrize("rule", ["nonsense", "minmax(x)", "minmax(-1)"])
def test_unknown_error_tables_are_refused(rule):
    with pytest.raises(RecordError, match="error table"):
        error_table(rule)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_error_from_statistics_alone_predicts_the_measured_one(bits):
    rng = np.random.default_rng(bits)
    std = rng.uniform(0.5, 2, 32)
    rows = rng.normal(0, std[:, None], (32, 4096)).astype(np.float32)
    measured = quantize(rows, bits).squared_error.sum()
    predicted = expected_squared_error(rows.std(axis=1), rows.mean(axis=1), 4096, bits)
    assert measured == pytest.approx(predicted, rel=0.08)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_widths_outside_one_to_eight_are_refused(bits):
    with pytest.raises(RecordError, match="1 to 8"):
        gaussian_mse(bits)
