"""Damage of outputs in nats: definitions, second order, directions. The oracles are written out entry by entry."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampq.core.readouts.canonical import canonical
from lampq.core.readouts.classes import Classes
from lampq.core.readouts.direction import Direction
from lampq.core.readouts.draws import Draws
from lampq.core.readouts.probabilities import Probabilities
from lampq.core.readouts.readout import Readout
from lampq.core.readouts.square_root import SquareRoot
from lampq.core.readouts.values import FLOOR, Values, channel_spread
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.head import Head

SPREAD = np.array([0.5, 1.0, 2.0])
ROLES = {
    "classes": Classes,
    "probabilities": Probabilities,
    "values": lambda axis: Values(axis=axis, spread=SPREAD),
    "direction": lambda axis: Direction(axis=axis, spread=SPREAD),
}
# Shapes of outputs with three entries along an axis, and that axis.
SHAPES = [((2, 3), 1), ((2, 3), -1), ((2, 4, 3), 2), ((2, 3, 4), 1), ((2, 3, 2, 2), 1), ((2, 2, 2, 3), -1)]
SETTINGS = settings(max_examples=10, deadline=None)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def bernoulli(p, q):
    return sum(a * np.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)))


def entry_damage(role, r, z):
    """Damage of one position, from the definition."""
    if role == "classes":
        p, q = softmax(r), softmax(z)
        return sum(p[c] * np.log(p[c] / q[c]) for c in range(3))
    if role == "probabilities":
        return sum(bernoulli(1 / (1 + np.exp(-r[c])), 1 / (1 + np.exp(-z[c]))) for c in range(3))
    if role == "direction":
        r, z = r / np.linalg.norm(r), z / np.linalg.norm(z)
    return sum(((z[c] - r[c]) / SPREAD[c]) ** 2 / 2 for c in range(3)) / 3


def position_damage(role, reference, output, axis, mask):
    """Damage of samples: positions one by one, averaged where the mask is set."""
    totals = []
    for sample in range(len(reference)):
        r = np.moveaxis(reference[sample], axis - 1 if axis > 0 else axis, -1).reshape(-1, 3)
        z = np.moveaxis(output[sample], axis - 1 if axis > 0 else axis, -1).reshape(-1, 3)
        chosen = [p for p in range(len(r)) if mask is None or mask[sample, p]]
        totals.append(sum(entry_damage(role, r[p], z[p]) for p in chosen) / max(len(chosen), 1))
    return np.array(totals)


def outputs(seed, shape, axis, masked):
    """Two outputs, a small difference and a mask, float64."""
    rng = np.random.default_rng(seed)
    reference, output, difference = rng.normal(size=(3, *shape)) * np.array([2, 2, 1]).reshape(
        3, *[1] * len(shape)
    )
    positions = reference[0].size // shape[axis]
    mask = rng.integers(0, 2, (shape[0], positions)) if masked else None
    return reference, output, difference, mask


every_role = pytest.mark.parametrize("role", ROLES)
every_shape = pytest.mark.parametrize(("shape", "axis"), SHAPES)


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


def joint(seed=0):
    """Heads of every role, float outputs in two groups of shapes, other outputs, and masks."""
    rng = np.random.default_rng(seed)

    def draw(samples, tokens):
        shapes = {"c": (4, tokens), "p": (1, tokens, 2), "v": (tokens, 3), "d": (5,), "o": ()}
        return {name: rng.normal(size=(samples, *shape)).astype(np.float32) for name, shape in shapes.items()}

    heads = (
        Head(name="c", role="classes", axis=1, weight=2.0),
        Head(name="p", role="probabilities", axis=1),
        Head(name="v", role="values", mask="mask", weight=0.5),
        Head(name="d", role="direction"),
        Head(name="o", role="probabilities"),
    )
    one, other = (Batch([draw(3, 4), draw(2, 6)]) for _ in range(2))
    masks = Batch([{"mask": rng.integers(0, 2, (3, 4))}, {"mask": rng.integers(0, 2, (2, 6))}])
    return heads, one, other, masks


def test_the_damage_of_a_model_is_the_weighted_sum_of_that_of_its_heads():
    heads, one, other, masks = joint()
    readout = Readout.fit(heads, one, masks)
    damage = readout.damage(readout.reference(one, masks), other)
    parts = []
    for head in heads:
        alone = Readout.fit(
            (Head(name=head.name, role=head.role, axis=head.axis, mask=head.mask),), one, masks
        )
        parts.append(head.weight * alone.damage(alone.reference(one, masks), other))
    np.testing.assert_allclose(damage, np.sum(parts, axis=0))
    assert damage.shape == (5,) and readout.notes == ()


def test_an_expansion_around_other_outputs_is_that_of_the_joint_damage():
    heads, one, centre, masks = joint(1)
    readout = Readout.fit(heads, one, masks)
    reference, around = readout.reference(one, masks), readout.reference(centre, masks)
    step = joint(2)[1].map(lambda array: array * np.float32(1e-3))
    embedding, linear = readout.embedding(around), readout.linear(reference, around)
    mean = {
        s: readout.damage(reference, centre.plus(step.map(lambda a, s=s: s * a))).mean() for s in (-1, 0, 1)
    }
    np.testing.assert_allclose(linear(step), (mean[1] - mean[-1]) / 2, rtol=1e-3)
    itself = np.mean(
        [readout.damage(around, centre.plus(step.map(lambda a, s=s: s * a))).mean() for s in (-1, 1)]
    )
    column = embedding(step)
    assert column.dtype == np.float32 and column.shape == (embedding.size,) == embedding.importance.shape
    np.testing.assert_allclose(np.square(column.astype(np.float64)).sum(), itself, rtol=1e-2)
    np.testing.assert_allclose(embedding.importance.sum(), 5 * (2 + 1 + 0.5 + 1 + 1))


def test_probes_of_all_heads_together_agree_with_the_embedding():
    heads, one, step, masks = joint(3)
    readout = Readout.fit(heads, one, masks)
    reference = readout.reference(one, masks)
    draws, total = 600, 0.0
    for vectors in readout.directions(reference, Draws(labels="probe", count=draws, seed=0)):
        for group, moved in zip(vectors.groups, step.groups, strict=True):
            along = sum(
                (group[name] * moved[name]).reshape(len(moved[name]), -1).sum(axis=1) for name in group
            )
            total += np.square(along).sum()
    second = np.square(readout.embedding(reference)(step).astype(np.float64)).sum()
    np.testing.assert_allclose(total / (2 * one.samples), second, rtol=0.15)


def lone(samples=4, classes=5, seed=0):
    logits = np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32) * 3
    batch = Batch.of(logits, name="y")
    return Readout.fit((Head(name="y", role="classes"),), batch, None), batch


def test_exact_directions_add_up_to_the_metric():
    readout, batch = lone()
    total = sum(
        v["y"][:, :, None] * v["y"][:, None, :] for v in readout.directions(batch, Draws(labels="exact"))
    )
    p = np.stack([softmax(z) for z in batch["y"].astype(np.float64)])
    np.testing.assert_allclose(total, np.eye(5) * p[:, None] - p[:, :, None] * p[:, None, :], atol=1e-14)


def test_directions_are_as_many_as_asked_for_and_exact_where_that_is_no_more():
    readout, batch = lone()
    assert [len(list(readout.directions(batch, Draws(count=draws)))) for draws in (1, 3, 4, 9)] == [
        1,
        3,
        4,
        4,
    ]


@pytest.mark.parametrize("labels", ["probe", "sampled"])
def test_a_sample_draws_the_same_vectors_in_any_batch(labels):
    readout, batch = lone()
    whole = np.stack([v["y"] for v in readout.directions(batch, Draws(labels=labels, count=3, seed=7))])
    part = readout.directions(
        batch.take([2, 3]), Draws(labels=labels, count=3, seed=7, samples=np.array([2, 3]))
    )
    np.testing.assert_allclose(np.stack([v["y"] for v in part]), whole[:, 2:])
    other = next(readout.directions(batch, Draws(labels=labels, count=3, seed=8)))
    assert not np.allclose(other["y"], whole[0])


def test_drawn_vectors_come_from_these_random_numbers():
    """Plans made earlier hold: signs and labels are drawn as they always were."""
    readout, batch = lone()
    p = np.stack([softmax(z) for z in batch["y"].astype(np.float64)])
    uniform = np.stack([np.random.default_rng((5, n)).random((2,)) for n in range(4)])
    for draw, vector in enumerate(readout.directions(batch, Draws(labels="sampled", count=2, seed=5))):
        chosen = [int(np.searchsorted(np.cumsum(row), u)) for row, u in zip(p, uniform[:, draw], strict=True)]
        np.testing.assert_allclose(vector["y"], (np.eye(5)[chosen] - p) / np.sqrt(2), atol=1e-12)
    signs = np.stack([np.random.default_rng((5, n)).random((2, 4)) for n in range(4)]) < 0.5
    root = SquareRoot(np.log(p))
    for draw, vector in enumerate(readout.directions(batch, Draws(labels="probe", count=2, seed=5))):
        expected = root.times(np.where(signs[:, draw], -1.0, 1.0)) / np.sqrt(2)
        np.testing.assert_allclose(vector["y"], expected, atol=1e-12)


def test_labels_of_the_data_give_the_gradient_of_the_cross_entropy():
    readout, batch = lone()
    (automatic,) = readout.directions(batch, Draws(truth=np.array([0, 4, 2, 1])))
    (vector,) = readout.directions(batch, Draws(labels="data", truth=np.array([0, 4, 2, 1])))
    np.testing.assert_array_equal(automatic["y"], vector["y"])
    p = np.stack([softmax(z) for z in batch["y"].astype(np.float64)])
    np.testing.assert_allclose(vector["y"], np.eye(5)[[0, 4, 2, 1]] - p, atol=1e-12)


@pytest.mark.parametrize(
    ("labels", "truth", "message"),
    [
        ("data", None, "needs labels"),
        ("data", np.array([0, 1, 2, 5]), "labels run from 0 to 5, but the model has 5 classes"),
        ("data", np.array([0, 1]), "2 labels for 4 samples"),
        ("none", None, "none of auto"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, truth, message):
    readout, batch = lone()
    with pytest.raises(AdapterError, match=message):
        readout.directions(batch, Draws(labels=labels, truth=truth))


@pytest.mark.parametrize("labels", ["exact", "sampled", "data"])
def test_outputs_that_are_no_lone_classes_have_probes_alone(labels):
    heads, one, _, masks = joint()
    readout = Readout.fit(heads, one, masks)
    with pytest.raises(AdapterError, match="take 'probe'"):
        readout.directions(readout.reference(one, masks), Draws(labels=labels, truth=np.zeros(5, dtype=int)))
    assert len(list(readout.directions(readout.reference(one, masks), Draws(count=2)))) == 2


def test_weights_of_a_head_scale_its_directions():
    batch = lone()[1]
    one, four = (Readout.fit((Head(name="y", role="classes", weight=w),), batch, None) for w in (1, 4))
    for labels in ("exact", "probe"):
        pairs = zip(
            one.directions(batch, Draws(labels=labels)),
            four.directions(batch, Draws(labels=labels)),
            strict=True,
        )
        for single, double in pairs:
            np.testing.assert_allclose(2 * single["y"], double["y"])


def test_a_head_that_never_moves_is_left_out_with_a_note():
    rng = np.random.default_rng(0)
    outputs = Batch.of({"flat": np.ones((3, 2), np.float32), "y": rng.normal(size=(3, 4)).astype(np.float32)})
    heads = (Head(name="flat", role="values"), Head(name="y", role="classes"))
    readout = Readout.fit(heads, outputs, None)
    assert [head.name for head in readout.heads] == ["y"]
    assert readout.notes == ("output flat is constant over all samples; it is not judged",)
    with pytest.raises(RecordError, match="output flat is constant over all samples"):
        Readout.fit(heads[:1], outputs, None)


def test_infinite_logits_are_counted_in_a_note():
    logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    heads = (Head(name="y", role="classes"),)
    assert Readout.fit(heads, Batch.of({"y": logits}), None).notes == ()
    logits[:, 3] = -np.inf
    (note,) = Readout.fit(heads, Batch.of({"y": logits}), None).notes
    assert note.startswith("3 of 12 values of output y are infinite in the float model")


def test_a_head_that_is_no_number_is_left_out_with_a_note():
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    broken = values.copy()
    broken[1, 2] = np.nan
    heads = (Head(name="a", role="values"), Head(name="y", role="classes"))
    readout = Readout.fit(heads, Batch.of({"a": broken, "y": values}), None)
    assert readout.notes == (
        "output a is NaN or infinite in the float model (first for sample 1); it is not judged",
    )
    with pytest.raises(RecordError, match=r"output y is NaN .* sample 1"):
        Readout.fit(heads[1:], Batch.of({"a": values, "y": broken}), None)


@pytest.mark.parametrize(
    ("head", "shape", "message"),
    [
        (Head(name="y", role="classes"), (3, 1), "one entry on axis -1: no classes"),
        (Head(name="y", role="classes"), (3,), "one entry on axis -1: no classes"),
        (Head(name="y", role="classes", axis=1), (3, 1, 4), "one entry on axis 1"),
        (Head(name="y", role="values", axis=3), (3, 4), "no axis 3"),
        (Head(name="y", role="values", axis=-2), (3, 4), "no axis -2"),
        (Head(name="y", role="values"), (3, 0), "nothing to judge"),
        (
            Head(name="y", role="values", mask="m"),
            (3, 5, 2),
            r"mask 'm' has shape \(3, 4\); output y of shape \(3, 5, 2\) has 5 positions",
        ),
        (Head(name="y", role="values", mask="n"), (3, 4, 2), "the input 'n', which is missing"),
        (Head(name="z", role="values"), (3, 4), "no array is called 'z'"),
        (Head(name="y", role="ignore"), (3, 4), "no output is judged"),
    ],
)
def test_a_role_that_cannot_be_is_refused_in_one_line(head, shape, message):
    outputs = Batch.of(np.random.default_rng(0).normal(size=shape).astype(np.float32), name="y")
    with pytest.raises(RecordError, match=message) as caught:
        Readout.fit((head,), outputs, Batch.of(np.ones((3, 4)), name="m"))
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_not_judged():
    with pytest.raises(RecordError, match=r"output y of shape \(3,\) holds int64"):
        Readout.fit((Head(name="y", role="values"),), Batch.of(np.arange(3), name="y"), None)


def test_an_output_and_its_mask_have_two_names():
    outputs = Batch.of(np.random.default_rng(0).normal(size=(3, 4, 2)), name="m")
    with pytest.raises(RecordError, match="'m' is the name of an output and of the input"):
        Readout.fit((Head(name="m", role="values", mask="m"),), outputs, Batch.of(np.ones((3, 4)), name="m"))


def test_masks_of_other_samples_are_checked_too():
    rng = np.random.default_rng(0)
    outputs, masks = Batch.of(rng.normal(size=(3, 4, 2)), name="y"), Batch.of(np.ones((3, 4)), name="m")
    readout = Readout.fit((Head(name="y", role="values", mask="m"),), outputs, masks)
    with pytest.raises(RecordError, match="mask 'm' of output y is missing"):
        readout.damage(outputs, outputs)
    wrong = readout.reference(outputs, Batch.of(np.ones((3, 5)), name="m"))
    with pytest.raises(RecordError, match=r"mask 'm' has shape \(3, 5\)"):
        readout.damage(wrong, outputs)


def test_outputs_that_are_no_numbers_are_named():
    readout, batch = lone()
    assert readout.check(batch, "the model") is batch
    broken = batch["y"].copy()
    broken[2, 0] = np.nan
    with pytest.raises(
        RecordError, match=r"it gives NaN or infinite values in output y \(first for sample 2\)"
    ):
        readout.check(Batch.of(broken, name="y"), "it")
    broken[2] = -np.inf
    with pytest.raises(RecordError, match="sample 2"):
        readout.check(Batch.of(broken, name="y"), "it")
    broken[2, 1] = 0
    readout.check(Batch.of(broken, name="y"), "an impossible class")


def test_outputs_of_another_shape_are_refused():
    readout, batch = lone()
    with pytest.raises(RecordError, match="outputs of 2 samples do not fit a reference of 4"):
        readout.damage(batch, batch.take([0, 1]))
    with pytest.raises(RecordError, match=r"output y has shape \(4, 4\); expected \(4, 5\)"):
        readout.damage(batch, batch.map(lambda array: array[:, :4]))
    with pytest.raises(RecordError, match="no output is called 'y'"):
        readout.damage(batch, Batch.of(batch["y"], name="x"))
    embedding = readout.embedding(batch)
    with pytest.raises(RecordError, match=r"has shape \(4, 4\)"):
        embedding(batch.map(lambda array: array[:, :4]))
    with pytest.raises(RecordError, match="not finite"):
        embedding(batch.map(lambda array: np.full_like(array, np.inf)))


def test_decisions_are_the_likeliest_class_and_yes_or_no_where_positions_count():
    heads, one, _, masks = joint()
    readout = Readout.fit(heads, one, masks)
    decisions = readout.decisions(one)
    assert set(decisions) == {"c", "p", "o"}
    np.testing.assert_array_equal(decisions["c"][0], [*one.groups[0]["c"][0].argmax(axis=0), -1, -1])
    np.testing.assert_array_equal(decisions["c"][4], one.groups[1]["c"][1].argmax(axis=0))
    logits = one.groups[0]["o"]
    np.testing.assert_array_equal(decisions["o"][:3], logits > 0)


@pytest.mark.parametrize("role", ["classes", "probabilities"])
def test_decisions_under_a_mask_are_told(role):
    rng = np.random.default_rng(0)
    outputs = Batch.of(rng.normal(size=(2, 3, 4)).astype(np.float32), name="y")
    masks = Batch.of(np.array([[1, 1, 0], [1, 0, 0]]), name="m")
    readout = Readout.fit((Head(name="y", role=role, mask="m"),), outputs, masks)
    free = readout.decisions(outputs)["y"]
    told = readout.decisions(readout.reference(outputs, masks))["y"]
    ignored = masks["m"] == 0
    assert (told[ignored] == -1).all() and (told[~ignored] == free[~ignored]).all() and (free >= 0).all()


def test_a_signature_tells_samples_apart_whatever_else_is_in_the_batch():
    heads, one, other, masks = joint()
    readout = Readout.fit(heads, one, masks)
    signature = readout.signature(one)
    assert signature.shape == (5, 8) and signature.dtype == np.float32
    np.testing.assert_array_equal(readout.signature(one.take([1, 4])), signature[[1, 4]])
    assert not np.isclose(readout.signature(other), signature).all(axis=1).any()


def test_large_outputs_are_judged_a_few_samples_at_a_time(monkeypatch):
    heads, one, other, masks = joint()
    readout = Readout.fit(heads, one, masks)
    reference = readout.reference(one, masks)

    def figures():
        embedding, linear = readout.embedding(reference), readout.linear(reference, other)
        return readout.damage(reference, other), embedding(other), embedding.importance, linear(one)

    whole = figures()
    monkeypatch.setattr("lampq.core.readouts.rows._BLOCK", 10)
    for blocks, all_at_once in zip(figures(), whole, strict=True):
        np.testing.assert_allclose(blocks, all_at_once, rtol=1e-12)


def test_a_readout_goes_to_other_processes():
    heads, one, other, masks = joint()
    readout = Readout.fit(heads, one, masks)
    copy = pickle.loads(pickle.dumps(readout))
    reference = readout.reference(one, masks)
    np.testing.assert_array_equal(copy.damage(reference, other), readout.damage(reference, other))
