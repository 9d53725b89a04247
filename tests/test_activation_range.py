import itertools

import numpy as np
import pytest

from lampq.core.quantizing.activation_range import BINS, Histogram
from lampq.core.values.activation_grid import ActivationGrid, TokenGrid
from lampq.core.values.errors import RecordError


def histogram(values):
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, BINS, (low, high))
    return Histogram(low=low, high=high, counts=counts.astype(np.float64))


def samples(name):
    rng = np.random.default_rng(3)
    normal = rng.normal(size=4000).astype(np.float32)
    return {
        "gaussian": normal,
        "outliers": np.concatenate([normal, np.float32([40, -25])]),
        "after gelu": (normal * 2 * (normal > -0.1)).astype(np.float32) - np.float32(0.05),
        "after softmax": rng.dirichlet(np.full(65, 0.1), 60).astype(np.float32).ravel(),
        "shifted": normal * np.float32(0.3) + 5,
    }[name]


CASES = ("gaussian", "outliers", "after gelu", "after softmax", "shifted")


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize("case", CASES)
def test_clipping_by_mse_is_as_good_as_trying_all_ranges(case, bits):
    values = samples(case)
    grid = histogram(values).grid(bits, "mse")
    error = np.square(grid.apply(values) - values).mean()
    low, high = min(values.min(), 0), max(values.max(), 0)
    shares = np.linspace(0.02, 1, 40)
    ends = itertools.product(low * shares if low < 0 else [0.0], high * shares if high > 0 else [0.0])
    candidates = [ActivationGrid.from_range(float(a), float(b), bits) for a, b in ends]
    best = min(np.square(grid.apply(values) - values).mean() for grid in candidates)
    # The search and the brute force look at different ranges.
    assert error <= 1.02 * best
    assert histogram(values).error(grid) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("case", CASES)
def test_minmax_and_percentile(case):
    values = samples(case)
    found = histogram(values)
    whole = found.grid(4, "minmax")
    assert whole == ActivationGrid.from_range(values.min(), values.max(), 4)
    cut = found.grid(4, "percentile", percentile=99)
    width = 2 * (found.high - found.low) / BINS
    wide, narrow = np.percentile(values, [0.4, 99.6]), np.percentile(values, [0.6, 99.4])
    least, most = (ActivationGrid.from_range(*ends, 4).scale * 15 for ends in (narrow, wide))
    assert least - width <= cut.scale * 15 <= most + width


def test_a_constant_keeps_its_value():
    values = np.full(50, 2.5, np.float32)
    for method in ("minmax", "percentile", "mse"):
        grid = histogram(values).grid(2, method)
        np.testing.assert_allclose(grid.apply(values), values, rtol=1e-3)
    zero = histogram(np.zeros(5, np.float32)).grid(3)
    assert (zero.apply(np.zeros(3)) == 0).all()


def test_every_token_has_its_own_range():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 4, 16)).astype(np.float32) * np.float32([[[1], [10], [100], [0]]])
    found = TokenGrid(bits=5).apply(values)
    for token, row in zip(values.reshape(-1, 16), found.reshape(-1, 16), strict=True):
        grid = ActivationGrid.from_range(token.min(), token.max(), 5)
        np.testing.assert_allclose(row, grid.apply(token), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Histogram(low=np.nan, high=1.0, counts=np.ones(BINS)), "finite"),
        (lambda: Histogram(low=0.0, high=1.0, counts=np.zeros(BINS)), "at least one value"),
        (lambda: Histogram(low=0.0, high=1.0, counts=np.ones(BINS)).grid(4, "best"), "none of minmax"),
        (
            lambda: Histogram(low=0.0, high=1.0, counts=np.ones(BINS)).grid(4, "percentile", percentile=0),
            "percentile 0",
        ),
        (lambda: Histogram(low=0.0, high=1.0, counts=np.ones(BINS)).grid(9), "2 to 8"),
        (lambda: TokenGrid(bits=1), "2 to 8"),
    ],
)
def test_what_cannot_be(make, says):
    with pytest.raises(RecordError, match=says):
        make()
