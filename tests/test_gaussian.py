import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampq.core.values.errors import RecordError
from lampq.core.values.gaussian import Gaussian

sizes = st.integers(1, 40)


@given(sizes, sizes, st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(-1e4, 1e4))
def test_merging_shards_equals_measuring_everything(left, right, channels, seed, shift):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(shift, 1, (channels, left)), rng.normal(-shift, 3, (channels, right))
    merged = Gaussian.from_array(a, channel_axis=0).merge(Gaussian.from_array(b, channel_axis=0))
    both = np.concatenate([a, b], axis=1)
    assert merged.count == left + right
    np.testing.assert_allclose(merged.mean, both.mean(axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.std, both.std(axis=1), rtol=1e-9, atol=1e-9 * (1 + abs(shift)))
    np.testing.assert_array_equal(merged.min, both.min(axis=1))
    np.testing.assert_array_equal(merged.max, both.max(axis=1))


@given(st.integers(0, 2**32 - 1))
def test_whole_tensor_statistics_follow_from_those_of_the_channels(seed):
    values = np.random.default_rng(seed).normal(2, 3, (4, 5, 6))
    whole = Gaussian.from_array(values, channel_axis=1).whole()
    np.testing.assert_allclose(whole.mean, values.mean())
    np.testing.assert_allclose(whole.std, values.std())
    assert whole.count == values.size


def test_a_large_offset_does_not_cancel_in_float32():
    values = (1e4 + np.random.default_rng(0).normal(0, 1e-1, 100_000)).astype(np.float32)
    assert Gaussian.from_array(values).std[0] == pytest.approx(values.astype(np.float64).std(), rel=1e-3)


def test_round_trip_through_json():
    g = Gaussian.from_array(np.arange(6.0).reshape(2, 3), channel_axis=1)
    back = Gaussian.from_json(g.to_json())
    np.testing.assert_array_equal(back.std, g.std)
    assert back.count == 2


@pytest.mark.parametrize("values", [np.array([1.0, np.nan]), np.array([np.inf]), np.empty(0)])
def test_values_that_are_no_numbers_are_refused(values):
    with pytest.raises(RecordError):
        Gaussian.from_array(values)


@pytest.mark.parametrize(
    "change",
    [{"std": [-1.0]}, {"count": 0}, {"min": [2.0], "max": [1.0]}, {"mean": [np.nan]}, {"std": [1.0, 2.0]}],
)
def test_impossible_statistics_are_refused(change):
    data = {"mean": [0.0], "std": [1.0], "min": [-1.0], "max": [1.0], "count": 3, **change}
    with pytest.raises(RecordError):
        Gaussian.from_json(data)


def test_a_large_array_is_measured_with_a_little_memory_beside_it():
    values = np.random.default_rng(0).normal(3, 2, size=(4, 1 << 22)).astype(np.float32)
    tracemalloc.start()
    try:
        whole = Gaussian.from_array(values)
        channels = Gaussian.from_array(values, channel_axis=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < values.nbytes / 2
    exact = values.astype(np.float64)
    assert whole.std[0] == pytest.approx(exact.std(), rel=1e-6)
    np.testing.assert_allclose(channels.std, exact.std(axis=1), rtol=1e-6)
