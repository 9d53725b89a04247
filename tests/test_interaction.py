import tracemalloc

import numpy as np
import pytest
from class_outputs import logits_batch, logits_builder, logits_interaction
from divergence import kl_divergence, log_softmax, second_order_kl
from hypothesis import given, settings
from hypothesis import strategies as st
from records import make_profile

from lampq.core.measuring.interaction import Interaction, peak_bytes, profile_interaction
from lampq.core.values.errors import RecordError


def differences(seed, layers=4, options=3, samples=5, classes=6, size=0.3):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(samples, classes)) * 2
    return target, (rng.normal(size=(layers, options, samples, classes)) * size).astype(np.float32)


def around(target, centre, delta):
    builder = logits_builder(target, centre=centre, layers=len(delta), options=delta.shape[1])
    for layer, option in np.ndindex(delta.shape[:2]):
        builder.add(layer, option, logits_batch(delta[layer, option]))
    return builder.build()


def total(delta, choice):
    return sum(delta[i, j].astype(np.float64) for i, j in enumerate(choice))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_plan_is_predicted_by_the_second_order_kl_of_the_summed_differences(seed):
    target, delta = differences(seed)
    interaction = logits_interaction(target, delta)
    choices = np.random.default_rng(seed).integers(0, 3, (4, 4))
    expected = [second_order_kl(target, total(delta, choice)).mean() for choice in choices]
    np.testing.assert_allclose(interaction.predict(choices), expected, rtol=1e-5)
    assert interaction.error == 0
    assert interaction.constant == 0
    assert not interaction.linear.any()


def test_around_a_plan_the_expansion_is_that_of_the_true_kl():
    target, delta = differences(3)
    centre = target + np.random.default_rng(4).normal(size=target.shape) * 0.5
    p, q = (np.exp(log_softmax(z)) for z in (target, centre))
    interaction = around(target, centre, delta)
    choice = np.array([2, 0, 1, 1])
    step = total(delta, choice)
    variance = (q * step**2).sum(-1) - (q * step).sum(-1) ** 2
    expected = kl_divergence(target, centre) + ((q - p) * step).sum(-1) + variance / 2
    assert float(interaction.predict(choice)) == pytest.approx(expected.mean(), rel=1e-5)


def test_the_error_of_the_expansion_is_of_third_order():
    target, delta = differences(5)
    centre = target + np.random.default_rng(6).normal(size=target.shape) * 0.5
    choice = np.array([0, 1, 2, 0])
    errors = []
    for size in (0.4, 0.2, 0.1):
        small = (delta * size).astype(np.float32)
        truth = kl_divergence(target, centre + total(small, choice)).mean()
        predicted = around(target, centre, small).predict(choice)
        errors.append(abs(float(predicted) - truth))
    assert errors[0] / errors[1] > 5
    assert errors[1] / errors[2] > 5


def test_the_matrix_is_positive_semi_definite_and_its_diagonal_is_the_damage_of_one_layer():
    target, delta = differences(7, layers=6, options=4)
    interaction = logits_interaction(target, delta)
    values = np.linalg.eigvalsh(interaction.matrix)
    assert values[0] > -1e-12 * values[-1]
    np.testing.assert_allclose(interaction.own, second_order_kl(target, delta).mean(-1), rtol=1e-5)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_tied_layers_move_together(seed):
    target, delta = differences(seed, layers=5)
    centre = target * 0.9
    rng = np.random.default_rng(seed)
    groups = np.unique(rng.integers(0, 3, 5), return_inverse=True)[1]
    whole = around(target, centre, delta)
    grouped = whole.grouped(groups)
    for choice in rng.integers(0, 3, (4, groups.max() + 1)):
        assert float(grouped.predict(choice)) == pytest.approx(float(whole.predict(choice[groups])))


def test_an_option_of_a_group_is_measured_where_all_its_layers_are():
    target, delta = differences(8)
    builder = logits_builder(target, layers=4, options=3)
    for layer in range(4):
        builder.keep(layer, 0)
        builder.add(layer, 1, logits_batch(delta[layer, 1]))
    builder.add(0, 2, logits_batch(delta[0, 2]))
    interaction = builder.build()
    assert interaction.measured.tolist() == [[True] * 3] + [[True, True, False]] * 3
    grouped = interaction.grouped(np.array([0, 0, 1, 2]))
    assert grouped.measured.tolist() == [[True, True, False]] * 3


def test_layers_in_another_order_give_the_same_prediction():
    target, delta = differences(9)
    order = np.array([2, 0, 3, 1])
    choice = np.array([0, 2, 1, 2])
    one, other = logits_interaction(target, delta), logits_interaction(target, delta[order])
    assert float(one.predict(choice)) == pytest.approx(float(other.predict(choice[order])))


def sketched(target, delta, *, rows, seed=0):
    builder = logits_builder(target, layers=len(delta), options=delta.shape[1], rows=rows, seed=seed)
    for layer, option in np.ndindex(delta.shape[:2]):
        builder.add(layer, option, logits_batch(delta[layer, option]))
    return builder.build()


def test_a_sketch_is_unbiased_and_keeps_to_its_stated_error():
    target, delta = differences(10, layers=6, options=2, samples=40, classes=50)
    target *= 0.3
    choice = np.array([0, 1, 0, 1, 1, 0])
    truth = float(logits_interaction(target, delta).predict(choice))
    found = [sketched(target, delta, rows=128, seed=seed) for seed in range(200)]
    assert found[0].error == pytest.approx(np.sqrt(2 / 64))
    relative = np.array([float(sketch.predict(choice)) for sketch in found]) / truth - 1
    assert abs(relative.mean()) < 3 * found[0].error / np.sqrt(len(found))
    assert relative.std() < 1.1 * found[0].error
    values = np.linalg.eigvalsh(found[0].matrix)
    assert values[0] > -1e-12 * values[-1]


def test_a_sketch_is_exact_on_the_probable_classes():
    rng = np.random.default_rng(11)
    target = rng.normal(size=(10, 30))
    target[:, :5] += 40
    delta = rng.normal(size=(3, 2, 10, 30)).astype(np.float32)
    choice = np.array([1, 0, 1])
    truth = float(logits_interaction(target, delta).predict(choice))
    assert float(sketched(target, delta, rows=120).predict(choice)) == pytest.approx(truth, rel=1e-5)


def test_a_profile_gives_its_interaction():
    profile = make_profile()
    interaction = profile_interaction(profile)
    expected = logits_interaction(profile.array("logits"), profile.array("logit_delta"))
    np.testing.assert_array_equal(interaction.gram, expected.gram)
    with pytest.raises(RecordError, match="--data"):
        profile_interaction(make_profile(data=False))


def test_bad_differences_are_named():
    target, delta = differences(12)
    builder = logits_builder(target, layers=4, options=3)
    bad = delta[0, 0].copy()
    bad[3, 1] = np.nan
    with pytest.raises(
        RecordError,
        match=r"layer 2, option 1, gives NaN .* logits \(first for sample 3\)",
    ):
        builder.add(2, 1, logits_batch(bad))
    with pytest.raises(RecordError, match="3 samples"):
        builder.add(2, 1, logits_batch(delta[0, 0][:3]))
    with pytest.raises(RecordError, match=r"146\.6 GiB .* at most 2 GiB are taken; choose mode kl"):
        logits_builder(target, layers=20_000, options=7)
    with pytest.raises(RecordError, match="2 samples"):
        logits_builder(target, layers=1, options=1, centre=target[:2])


def test_building_an_interaction_takes_no_more_memory_than_is_said():
    """NumPy's own; the matrix alone is 8 * 2,800^2 bytes."""
    target, rng = np.zeros((64, 10), np.float32), np.random.default_rng(0)
    builder = logits_builder(target, layers=400, options=7)
    tracemalloc.start()
    try:
        interaction = builder.build()
        _, peak = tracemalloc.get_traced_memory()
        assert peak + builder._factor.nbytes <= 1.01 * peak_bytes(2800, 640)
        held = interaction.gram.nbytes + interaction.square.nbytes
        tracemalloc.reset_peak()
        choices = rng.integers(0, 7, (16, 400))
        interaction.predict(choices)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < held + interaction.gram.nbytes
        tracemalloc.reset_peak()
        grouped = interaction.grouped(np.minimum(np.arange(400), 398))
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 1.05 * (held + grouped.gram.nbytes)
    finally:
        tracemalloc.stop()


def embedded(target, delta):
    """Rows of every sample whose squares add up to its damage, shape (S, classes, L J)."""
    p = np.exp(log_softmax(target))
    moved = delta - (p * delta).sum(-1, keepdims=True)
    return np.moveaxis(np.sqrt(p / 2) * moved, (2, 3), (0, 1)).reshape(*target.shape, -1)


def test_squares_are_those_of_single_samples():
    target, delta = differences(20, samples=12)
    products = np.array([rows.T @ rows for rows in embedded(target, delta)])
    built = logits_interaction(target, delta)
    np.testing.assert_allclose(built.matrix, products.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        built.square.reshape(products.shape[1:]), (products**2).mean(0), rtol=1e-4, atol=1e-9
    )


@pytest.mark.parametrize(("rows", "least", "most"), [(None, 0.9, 1.1), (1 << 11, 1.0, 2.0)])
def test_groups_of_samples_tell_the_sampling_error_and_sketches_add_theirs(rows, least, most):
    """The variance of the mean that follows from groups, over that of single samples."""
    target, delta = differences(21, layers=6, options=2, samples=640, classes=10)
    products = np.array([part.T @ part for part in embedded(target, delta)])
    truth = products.var(0, ddof=1) / 640
    built = sketched(target, delta, rows=rows, seed=0)
    variance = (built.square - np.square(built.gram)).reshape(truth.shape) / 639
    assert least < variance.sum() / truth.sum() < most
    assert np.corrcoef(variance.ravel(), truth.ravel())[0, 1] > 0.8


def test_interactions_are_lessened_with_few_samples_alone():
    other = ~np.eye(5, dtype=bool)[:, None, :, None].repeat(2, 1).repeat(2, 3)
    for samples, least, most in ((4, 0.0, 0.7), (2000, 0.95, 1.0)):
        target, delta = differences(22, layers=5, options=2, samples=samples)
        delta += 0.5 * delta[0, 0]
        built = logits_interaction(target, delta)
        less = built.shrunk(samples)
        np.testing.assert_array_equal(less.own, built.own)
        assert least <= np.abs(less.gram)[other].sum() / np.abs(built.gram)[other].sum() <= most


def test_an_interaction_is_a_plain_value():
    interaction = Interaction(
        gram=np.ones((1, 1, 1, 1)),
        linear=np.zeros((1, 1)),
        constant=0.5,
        measured=np.ones((1, 1), dtype=bool),
    )
    assert float(interaction.predict([0])) == 1.5
