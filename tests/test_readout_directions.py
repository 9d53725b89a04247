"""Directions of output space: exact ones add up to the metric, drawn ones are the same in any batch."""

import numpy as np
import pytest
from readout_cases import joint, lone, softmax

from lampq.core.readouts.draws import Draws
from lampq.core.readouts.readout import Readout
from lampq.core.readouts.square_root import SquareRoot
from lampq.core.values.errors import AdapterError


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
