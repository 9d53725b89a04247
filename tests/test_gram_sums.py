"""Inner products of rows and their sampling error, against loops over samples."""

import itertools

import numpy as np
import pytest

from lampq.core.measuring.gram_sums import GramSums
from lampq.core.measuring.interaction import interaction_of, profile_interaction
from lampq.core.measuring.measure import Damage, scattering
from lampq.core.measuring.shrinking import shrinkage, shrunk
from lampq.core.readouts.directions import directions
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.principal import principal
from lampq.core.readouts.readout import Readout
from lampq.core.readouts.softmax import log_softmax
from lampq.core.values.batch import Batch
from lampq.core.values.head import Head

HEAD = Head(name="z", role="classes")


def sums_of(rows):
    sums = GramSums(rows.shape[2])
    for start in range(0, len(rows), 4):
        sums.add(rows[start : start + 4].astype(np.float32))
    return sums


def tables(sums, layers):
    shape = (layers, sums.own.size // layers) * 2
    return sums.gram.reshape(shape), sums.square.reshape(shape)


def test_sums_are_means_over_samples_of_products_and_of_their_squares():
    rows = np.random.default_rng(0).normal(size=(11, 3, 6)).astype(np.float32).astype(np.float64)
    products = np.array([a.T @ a / 2 for a in rows])
    sums = sums_of(rows)
    np.testing.assert_allclose(sums.gram, products.mean(0), rtol=1e-6)
    np.testing.assert_allclose(sums.own, np.diag(products.mean(0)), rtol=1e-6)
    np.testing.assert_allclose(sums.square, (products**2).mean(0), rtol=1e-6)


def test_interactions_that_are_chance_alone_vanish_and_layers_keep_their_own():
    rows = np.random.default_rng(1).normal(size=(40, 1, 24))
    gram, square = tables(sums_of(rows), 12)
    assert shrinkage(gram, square, 40).mean() > 0.9
    less = shrunk(gram, square, 40).reshape(24, 24)
    np.testing.assert_array_equal(np.diag(less), np.diag(gram.reshape(24, 24)))
    assert np.linalg.eigvalsh(less).min() > -1e-9


def test_the_share_of_chance_is_variance_over_all_scatter_of_correlations_with_other_layers():
    rows = np.random.default_rng(8).normal(size=(40, 1, 6)) + np.random.default_rng(9).normal(size=(40, 1, 1))
    gram, square = tables(sums_of(rows), 3)
    flat, second, own = gram.reshape(6, 6), square.reshape(6, 6), np.einsum("ijij->ij", gram).ravel()
    pairs = {k: [(a, b) for a in (2 * k, 2 * k + 1) for b in range(6) if b // 2 != k] for k in range(3)}
    variance = {
        k: np.mean([(second[a, b] - flat[a, b] ** 2) / 38 / own[a] / own[b] for a, b in pairs[k]])
        for k in pairs
    }
    seen = np.mean([flat[a, b] ** 2 / own[a] / own[b] for k in pairs for a, b in pairs[k]])
    genuine = seen - np.mean(list(variance.values()))
    assert genuine > 0
    expected = [variance[k] / (genuine + variance[k]) for k in range(3)]
    np.testing.assert_allclose(shrinkage(gram, square, 40), expected)


def test_options_that_were_not_measured_count_for_nothing():
    rows = np.random.default_rng(10).normal(size=(30, 1, 6)) + np.random.default_rng(11).normal(
        size=(30, 1, 1)
    )
    twice = np.concatenate((rows, np.zeros((30, 1, 2))), axis=2)[:, :, [0, 6, 1, 7, 2, 6, 3, 7, 4, 6, 5, 7]]
    one, other = (shrinkage(*tables(sums_of(some), 6), 30) for some in (rows, twice))
    np.testing.assert_allclose(one, other)


def test_interactions_that_every_sample_shows_stay():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(2000, 1, 1)) * np.ones(8) + 0.3 * rng.normal(size=(2000, 1, 8))
    gram, square = tables(sums_of(rows), 4)
    assert shrinkage(gram, square, 2000).max() < 0.01


def test_shrinking_brings_few_samples_nearer_to_the_truth():
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(16, 16)) * 0.3 + np.eye(16)
    truth = mixing.T @ mixing / 2
    errors = []
    for _ in range(20):
        gram, square = tables(sums_of(rng.normal(size=(12, 1, 16)) @ mixing), 8)
        errors.append([np.linalg.norm(q.reshape(16, 16) - truth) for q in (gram, shrunk(gram, square, 12))])
    plain, less = np.mean(errors, axis=0)
    assert less < 0.9 * plain


def test_one_sample_tells_nothing_of_interactions():
    rows = np.random.default_rng(4).normal(size=(1, 2, 6))
    gram, square = tables(sums_of(rows), 3)
    assert (shrinkage(gram, square, 1) == 1).all()
    assert (shrinkage(np.zeros_like(gram), np.zeros_like(square), 5) == 1).all()


def test_a_profile_uses_what_it_knows_of_the_error():
    from records import make_profile

    base = make_profile()
    layers, options = base.kl.shape
    rows = np.random.default_rng(5).normal(size=(20, 1, layers * options))
    gram, square = tables(sums_of(rows), layers)
    profile = base.with_tables(gram=gram, gram_square=square)
    expected = shrunk(gram, square, profile.samples)
    np.testing.assert_array_equal(profile_interaction(profile).gram, expected)
    plain = base.with_tables(gram=gram)
    np.testing.assert_array_equal(profile_interaction(plain).gram, interaction_of(gram).gram)


def metric(z):
    p = np.exp(log_softmax(z))
    return np.einsum("sc,cd->scd", p, np.eye(z.shape[1])) - p[:, :, None] * p[:, None, :]


@pytest.mark.parametrize("count", [2, 3])
def test_principal_directions_that_carry_little_make_up_the_metric_on_average_over_all_signs(count):
    z = np.random.default_rng(6).normal(size=(3, 8)) * 0.1
    total = np.zeros((3, 8, 8))
    every = list(itertools.product((-1.0, 1.0), repeat=8))
    for signs in every:
        for v in principal(log_softmax(z), count, np.tile(signs, (3, 1))):
            total += v[:, :, None] * v[:, None, :] / len(every)
    np.testing.assert_allclose(total, metric(z), atol=1e-12)


def test_principal_directions_that_carry_most_are_eigenvectors_with_the_trace_of_the_metric_and_no_chance():
    z = np.random.default_rng(6).normal(size=(3, 10)) * 6
    chance = np.random.default_rng(0).choice((-1.0, 1.0), size=(2, 3, 10))
    first, second = (np.stack(list(principal(log_softmax(z), 3, signs)), axis=1) for signs in chance)
    np.testing.assert_array_equal(first, second)
    values, vectors = np.linalg.eigh(metric(z))
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    np.testing.assert_allclose(np.square(first).sum(axis=(1, 2)), values.sum(axis=1))
    expected = values[:, :3] + [0, 0, 1] * values[:, 3:].sum(axis=1, keepdims=True)
    along = np.einsum("skc,sck->sk", first, vectors[:, :, :3])
    # As near as a few steps come where two are nearly as large.
    np.testing.assert_allclose(along**2, expected, rtol=0.01)


def test_principal_directions_scatter_less_than_probes():
    z = np.random.default_rng(7).normal(size=(50, 10)) * 6
    reference = Batch.of(z, name="z")
    readout = Readout.fit((HEAD,), reference, None)
    errors = {}
    for labels in ("principal", "probe"):
        total = np.zeros((50, 10, 10))
        for vector in readout.directions(reference, Draws(labels=labels, count=3, seed=1)):
            v = np.asarray(vector)
            total += v[:, :, None] * v[:, None, :]
        errors[labels] = np.linalg.norm(total - metric(z))
    assert errors["principal"] < 0.7 * errors["probe"]


def test_few_classes_are_exact_and_sure_predictions_do_no_harm():
    z = np.array([[0.0, 1.0, 2.0], [0.0, 900.0, -900.0]])
    reference = Batch.of(z, name="z")
    readout = Readout.fit((HEAD,), reference, None)
    three = directions(readout.heads, readout.roles, reference, Draws(labels="principal", count=3, seed=0))
    total = sum(np.asarray(v)[:, :, None] * np.asarray(v)[:, None, :] for v in three)
    np.testing.assert_allclose(total, metric(z), atol=1e-12)
    for v in principal(log_softmax(np.array([[0.0, 900.0, -np.inf, 1.0]])), 3, np.ones((1, 4))):
        assert np.isfinite(v).all()


def test_interactions_of_some_samples_count_as_uncertain_as_they_are():
    """With the number of all samples beside them they are shrunk as with their own."""
    random = np.random.default_rng(0)
    sums = GramSums(12)
    sums.add(random.normal(size=(40, 3, 12)))
    shape = (4, 3, 4, 3)
    zero = np.zeros((4, 3))
    some = Damage(
        weight_error=zero,
        steps=zero.astype(np.int64),
        gram=sums.gram.reshape(shape),
        gram_square=sums.square.reshape(shape),
    )
    of_more = scattering(some, 40, 1000)
    np.testing.assert_allclose(
        shrunk(of_more.gram, of_more.gram_square, 1000), shrunk(some.gram, some.gram_square, 40), rtol=1e-9
    )
    assert scattering(some, 40, 40) is some
