"""Each role against its definition, computed here sample by sample; and its second order against finite differences."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from readout_cases import ROLES, SETTINGS, SPREAD, every_role, every_shape, outputs, position_damage, softmax

from lampq.core.readouts.canonical import canonical
from lampq.core.readouts.classes import Classes
from lampq.core.readouts.direction import Direction
from lampq.core.readouts.probabilities import Probabilities
from lampq.core.readouts.square_root import SquareRoot
from lampq.core.readouts.values import FLOOR, channel_spread
from lampq.core.values.batch import Batch
from lampq.core.values.head import Head


@every_role
@every_shape
@given(seed=st.integers(0, 10_000), masked=st.booleans())
@SETTINGS
def test_damage_is_what_the_definition_says(role, shape, axis, seed, masked):
    reference, output, _, mask = outputs(seed, shape, axis, masked)
    damage = ROLES[role](axis=axis).damage(reference, output, mask)
    expected = position_damage(role, reference, output, axis, mask)
    np.testing.assert_allclose(damage, expected, rtol=1e-9, atol=1e-12)
    assert damage.dtype == np.float64
    np.testing.assert_allclose(ROLES[role](axis=axis).damage(output, output, mask), 0, atol=1e-15)


@every_role
@every_shape
@given(seed=st.integers(0, 10_000), masked=st.booleans())
@SETTINGS
def test_the_squares_of_an_embedding_are_the_damage_of_a_small_difference(role, shape, axis, seed, masked):
    centre, _, difference, mask = outputs(seed, shape, axis, masked)
    fitted = ROLES[role](axis=axis)
    rows = fitted.embedding(centre, mask).apply(difference.astype(np.float32))
    squares = np.square(rows.astype(np.float64)).reshape(len(centre), -1).sum(axis=1)
    # Both signs together, so that terms of third order cancel.
    step = 1e-3
    damage = sum(fitted.damage(centre, centre + s * difference, mask) for s in (-step, step)) / 2
    assert rows.dtype == np.float32
    np.testing.assert_allclose(squares, damage / step**2, rtol=1e-3, atol=1e-6)


@every_role
@every_shape
@given(seed=st.integers(0, 10_000), masked=st.booleans())
@SETTINGS
def test_a_slope_is_the_gradient_of_the_damage(role, shape, axis, seed, masked):
    reference, centre, difference, mask = outputs(seed, shape, axis, masked)
    fitted = ROLES[role](axis=axis)
    slope = fitted.slope(reference, centre, mask)
    step = 1e-5
    ahead, behind = (fitted.damage(reference, centre + s * difference, mask) for s in (step, -step))
    expected = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(
        (slope * difference).reshape(len(centre), -1).sum(axis=1), expected, rtol=1e-5, atol=1e-7
    )


def metric(role, shape, axis, output, mask, sample):
    """M of one sample as a matrix: the Hessian of the damage, by applying the embedding to every unit vector."""
    size = int(np.prod(shape[1:]))
    embedding = ROLES[role](axis=axis).embedding(output, mask)
    columns = []
    for entry in range(size):
        unit = np.zeros(shape, dtype=np.float32)
        unit[sample].flat[entry] = 1
        columns.append(embedding.apply(unit)[sample].ravel().astype(np.float64))
    factor = np.stack(columns, axis=1)
    return 2 * factor.T @ factor


@every_role
@pytest.mark.parametrize(("shape", "axis"), [((1, 3), 1), ((1, 2, 3), -1), ((1, 3, 2), 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_probes_over_all_signs_average_to_the_metric(role, shape, axis, masked):
    output = outputs(3, shape, axis, False)[0]
    mask = np.array([[1] + [0] * (output.size // 3 - 1)]) if masked else None
    fitted = ROLES[role](axis=axis)
    signs = fitted.signs_shape(shape)
    total = np.zeros((output.size, output.size))
    vectors = list(itertools.product([-1.0, 1.0], repeat=int(np.prod(signs))))
    for vector in vectors:
        probe = fitted.probe(output, mask, np.array(vector).reshape(signs))
        total += np.outer(probe, probe)
    np.testing.assert_allclose(total / len(vectors), metric(role, shape, axis, output, mask, 0), atol=1e-6)


def test_the_metric_of_classes_and_probabilities_is_that_of_the_books():
    z = np.array([[0.3, -1.0, 2.0]])
    p, q = softmax(z[0]), 1 / (1 + np.exp(-z[0]))
    np.testing.assert_allclose(
        metric("classes", (1, 3), 1, z, None, 0), np.diag(p) - np.outer(p, p), atol=1e-7
    )
    np.testing.assert_allclose(
        metric("probabilities", (1, 3), 1, z, None, 0), np.diag(q * (1 - q)), atol=1e-7
    )
    np.testing.assert_allclose(metric("values", (1, 3), 1, z, None, 0), np.diag(1 / SPREAD**2) / 3, atol=1e-6)
    unit, length = z[0] / np.linalg.norm(z[0]), np.linalg.norm(z[0])
    turn = (np.eye(3) - np.outer(unit, unit)) / length
    expected = turn @ np.diag(1 / SPREAD**2) @ turn / 3
    np.testing.assert_allclose(metric("direction", (1, 3), 1, z, None, 0), expected, atol=1e-6)


@every_role
def test_importance_adds_up_to_one_per_sample(role):
    output = outputs(0, (4, 5, 3), -1, False)[0]
    mask = np.array([[1, 0, 1, 1, 0]] * 4)
    importance = ROLES[role](axis=-1).embedding(output, mask).importance
    assert importance.shape == output.shape
    np.testing.assert_allclose(importance.sum(axis=(1, 2)), 1)


@every_role
def test_masked_positions_count_nothing_and_a_sample_without_any_has_no_damage(role):
    reference, output, _, _ = outputs(1, (2, 4, 3), -1, False)
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    fitted = ROLES[role](axis=-1)
    damage = fitted.damage(reference, output, mask)
    np.testing.assert_allclose(
        damage, [fitted.damage(reference[:1, :2], output[:1, :2], None)[0], 0], rtol=1e-12
    )
    assert not fitted.slope(reference, output, mask)[0, 2:].any()
    assert not fitted.slope(reference, output, mask)[1].any()


def test_equal_infinite_logits_are_a_class_that_does_not_move():
    reference = np.array([[1.0, 2.0, -np.inf]], dtype=np.float32)
    output = np.array([[1.5, 2.0, -np.inf]], dtype=np.float32)
    two = Classes(axis=-1).damage(reference[:, :2], output[:, :2], None)
    np.testing.assert_allclose(Classes(axis=-1).damage(reference, output, None), two)
    difference = Batch.of(output, name="y").minus(Batch.of(reference, name="y"))["y"]
    np.testing.assert_array_equal(difference, [[0.5, 0, 0]])
    assert np.isfinite(Classes(axis=-1).embedding(reference, None).apply(difference)).all()
    assert np.isfinite(Classes(axis=-1).slope(reference, output, None)).all()
    assert np.isfinite(Classes(axis=-1).probe(reference, None, np.ones((1, 2)))).all()


def test_a_class_that_turns_impossible_costs_without_end_and_an_impossible_one_nothing():
    finite, cut = np.array([[1.0, 2.0]]), np.array([[1.0, -np.inf]])
    assert Classes(axis=-1).damage(finite, cut, None) == np.inf
    np.testing.assert_allclose(Classes(axis=-1).damage(cut, finite, None), np.log1p(np.e))


def test_sure_answers_that_agree_cost_nothing():
    sure = np.array([[np.inf, -np.inf, 800.0, -800.0]])
    assert Probabilities(axis=-1).damage(sure, sure, None) == 0
    assert not Probabilities(axis=-1).probe(sure, None, np.ones_like(sure)).any()
    assert not Probabilities(axis=-1).slope(sure, sure, None).any()
    np.testing.assert_allclose(
        Probabilities(axis=-1).damage(np.array([[0.0]]), np.array([[800.0]]), None), 400 - np.log(2)
    )


def test_a_vector_without_length_does_not_turn():
    zero, one = np.zeros((1, 3)), np.array([[1.0, 0.0, 0.0]])
    role = Direction(axis=-1, spread=SPREAD)
    assert np.isfinite(role.damage(zero, one, None)).all()
    assert not role.embedding(zero, None).apply(one.astype(np.float32)).any()


def test_a_direction_does_not_care_about_length():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 3))
    role = Direction(axis=-1, spread=SPREAD)
    np.testing.assert_allclose(role.damage(one, other, None), role.damage(3 * one, 0.1 * other, None))


@given(st.integers(0, 10_000), st.integers(2, 8))
@SETTINGS
def test_the_columns_of_the_square_root_add_up_to_the_covariance(seed, classes):
    z = np.random.default_rng(seed).normal(size=(3, classes)) * 4
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    total = sum(column[:, :, None] * column[:, None, :] for column in SquareRoot(log_p).columns())
    p = np.exp(log_p)
    expected = np.eye(classes) * p[:, None] - p[:, :, None] * p[:, None, :]
    np.testing.assert_allclose(total, expected, atol=1e-14)


def test_the_square_root_takes_classes_of_probability_zero():
    with np.errstate(divide="ignore"):
        log_p = np.log(np.array([[0.0, 0.25, 0.75, 0.0]]))
    columns = list(SquareRoot(log_p).columns())
    assert np.isfinite(columns).all()
    total = sum(np.outer(column, column) for column in columns)
    p = np.exp(log_p[0])
    np.testing.assert_allclose(total, np.diag(p) - np.outer(p, p), atol=1e-15)


def test_a_spread_is_that_of_samples_and_positions_that_count():
    rng = np.random.default_rng(0)
    rows, mask = rng.normal(size=(5, 4, 2)) * [1, 3], rng.integers(0, 2, (5, 4))
    np.testing.assert_allclose(channel_spread([(rows, None)]), rows.reshape(-1, 2).std(axis=0))
    counted = np.stack([rows[s, p] for s in range(5) for p in range(4) if mask[s, p]])
    halves = [(rows[:2], mask[:2]), (rows[2:], mask[2:])]
    np.testing.assert_allclose(channel_spread(halves), counted.std(axis=0))


def test_a_channel_that_hardly_varies_counts_as_a_fraction_of_the_widest():
    rows = np.zeros((6, 1, 3))
    rows[:, 0, 0], rows[:, 0, 1] = np.arange(6), 1e-6 * np.arange(6)
    spread = channel_spread([(rows, None)])
    np.testing.assert_allclose(spread, np.std(np.arange(6)) * np.array([1, FLOOR, FLOOR]))


def test_a_lone_sample_and_groups_of_other_channels_share_one_spread():
    rows = np.array([[[1.0, 2.0, 6.0]]])
    np.testing.assert_allclose(channel_spread([(rows, None)]), [rows.std()])
    other = np.array([[[0.0, 1.0]]])
    np.testing.assert_allclose(channel_spread([(rows, None), (other, None)]), [np.std([1, 2, 6, 0, 1])])


@pytest.mark.parametrize("value", [0.0, 3.0, 1e30])
def test_what_never_changes_has_no_spread(value):
    assert channel_spread([(np.full((4, 2, 3), value), None)]) is None


def test_canonical_outputs_are_logits():
    z = np.array([[1.0, -2.0, 0.5]], dtype=np.float32)
    classes = Head(name="y", role="classes", activated=True)
    logits = canonical(classes, softmax(z[0])[None])
    np.testing.assert_allclose(logits - logits.max(), z - z.max(), atol=1e-6)
    yes_no = Head(name="y", role="probabilities", activated=True)
    np.testing.assert_allclose(canonical(yes_no, 1 / (1 + np.exp(-z))), z, atol=1e-5)
    for head in (Head(name="y", role="classes"), Head(name="y", role="values", activated=True)):
        np.testing.assert_array_equal(canonical(head, z), z)


def test_canonical_outputs_are_finite_at_the_ends():
    ends = np.array([[0.0, 1.0]], dtype=np.float64)
    yes_no = canonical(Head(name="y", role="probabilities", activated=True), ends)
    assert yes_no.dtype == np.float32
    np.testing.assert_allclose(yes_no, [[-16.635532, 16.635532]], rtol=1e-6)
    classes = canonical(Head(name="y", role="classes", activated=True), ends)
    assert np.isfinite(classes).all()


@pytest.mark.parametrize("role", ["classes", "probabilities", "values"])
@pytest.mark.parametrize("activated", [False, True])
def test_canonical_outputs_are_the_same_in_pytorch(role, activated):
    import torch

    from lampq.adapters.autograd.canonical import canonical as in_torch

    head = Head(name="y", role=role, activated=activated)
    p = np.array([[0.0, 1e-30, 0.25, 0.75, 1.0]], dtype=np.float32)
    np.testing.assert_allclose(in_torch(head, torch.from_numpy(p)).numpy(), canonical(head, p), rtol=1e-6)
    half = in_torch(head, torch.zeros(1, 2, dtype=torch.float16))
    assert torch.isfinite(half).all()
    inside = torch.tensor([[0.25, 0.75]], requires_grad=True)
    in_torch(head, inside).sum().backward()
    assert torch.isfinite(inside.grad).all() and inside.grad.abs().min() > 0
