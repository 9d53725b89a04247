"""Low-rank compensation against the best that any factors can do."""

import numpy as np
import pytest

from lampq.core.quantizing.low_rank import compensate
from lampq.core.values.errors import RecordError
from lampq.core.values.factors import factor_bytes


def case(outputs=12, inputs=10, seed=0):
    """An error, and a second moment of correlated inputs."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(inputs, inputs)) * np.linspace(0.1, 3, inputs)
    return random.normal(size=(outputs, inputs)).astype(np.float32), mixing @ mixing.T


def damage(error, moment):
    return float(np.einsum("cn,cn->", error @ moment, error))


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_what_is_left_is_the_tail_of_the_singular_values(rank):
    error, moment = case()
    left = damage(error - compensate(error, moment, rank).product(), moment)
    values = np.linalg.svd(error @ np.linalg.cholesky(moment), compute_uv=False)
    # Eight bits for the factors cost a little.
    assert np.square(values[rank:]).sum() * (1 - 1e-5) <= left
    assert left <= np.square(values[rank:]).sum() + 2e-4 * np.square(values).sum()


def test_an_error_of_low_rank_is_undone():
    random = np.random.default_rng(1)
    error = (random.normal(size=(9, 2)) @ random.normal(size=(2, 7))).astype(np.float32)
    _, moment = case(9, 7)
    assert damage(error - compensate(error, moment, 2).product(), moment) < 1e-3 * damage(error, moment)


def test_inputs_that_never_move_divide_nothing():
    error, moment = case()
    moment[3], moment[:, 3] = 0, 0
    assert np.isfinite(compensate(error, moment, 2).product()).all()


def test_bytes_are_those_of_codes_and_scales():
    error, moment = case(12, 10)
    factors = compensate(error, moment, 3)
    stored = [factor.codes.nbytes + factor.scale.nbytes for factor in (factors.outer, factors.inner)]
    assert factors.size_bytes == factor_bytes((12, 10), 3) == sum(stored)


@pytest.mark.parametrize("rank", [0, 11])
def test_ranks_beyond_the_shape_are_refused(rank):
    error, moment = case()
    with pytest.raises(RecordError, match=f"rank {rank}: a layer of 12 x 10 takes 1 to 10"):
        compensate(error, moment, rank)


def test_moments_of_fewer_samples_than_inputs_have_factors():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 96)).astype(np.float32)
    # What summing in float32 leaves: a little below zero along some axes.
    moment = x.T @ x / 16 - np.float32(1e-4) * np.eye(96, dtype=np.float32)
    error = rng.normal(size=(8, 96)).astype(np.float32)
    product = compensate(error, moment, 4).product()
    before, after = (np.square(each @ x.T).sum() for each in (error, error - product))
    assert np.isfinite(product).all() and after < 0.8 * before
