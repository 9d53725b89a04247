"""Named arrays in groups of one shape."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampq.core.values.batch import Batch, join
from lampq.core.values.errors import RecordError


def texts(*sizes, seed=0):
    """Groups of (samples, tokens)."""
    rng = np.random.default_rng(seed)
    return Batch([{"ids": rng.integers(0, 9, size), "x": rng.normal(size=size)} for size in sizes])


def samples_of(batch, name="x"):
    return [row.tolist() for group in batch.groups for row in group[name]]


def test_a_lone_array_is_a_batch_and_a_batch_is_that_array():
    array = np.arange(6.0).reshape(3, 2)
    batch = Batch.of(array)
    assert batch.names == ("x",) and batch.samples == 3 and batch.sizes == (3,)
    assert np.asarray(batch) is not None and np.array_equal(np.asarray(batch), array)
    assert np.asarray(batch, dtype=np.float32).dtype == np.float32
    assert Batch.of(batch) is batch
    assert Batch.of({"a": array, "b": array}).names == ("a", "b")


def test_an_array_is_taken_by_name_where_samples_have_one_shape():
    batch = texts((2, 3))
    assert batch["ids"].shape == (2, 3)
    with pytest.raises(RecordError, match="no array is called 'y'; there are ids, x"):
        batch["y"]
    with pytest.raises(RecordError, match="several shapes"):
        texts((2, 3), (1, 4))["ids"]
    with pytest.raises(RecordError, match="no single array"):
        np.asarray(batch)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "at least one array"),
        ([{}], "at least one array"),
        ([{"a": np.zeros((0, 2))}], "no samples"),
        ([{"a": np.float32(1)}], "no samples"),
        ([{"a": np.zeros(2), "b": np.zeros(3)}], "'a' has 2 samples and 'b' 3"),
        ([{"a": np.zeros(2)}, {"b": np.zeros(2)}], "only some samples of a batch have 'a'"),
    ],
)
def test_what_is_no_batch_is_refused(groups, message):
    with pytest.raises(RecordError, match=message):
        Batch(groups)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_taking_samples_by_number_counts_through_all_groups(data):
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3))
    batch = texts(*sizes)
    numbers = sorted(data.draw(st.lists(st.integers(0, batch.samples - 1), min_size=1, max_size=6)))
    every = samples_of(batch)
    assert samples_of(batch.take(numbers)) == [every[number] for number in numbers]


@pytest.mark.parametrize("numbers", [[4], [-1], [0, 4]])
def test_samples_that_are_not_there_are_not_taken(numbers):
    with pytest.raises(RecordError, match=f"no sample {numbers[-1]}; there are 4, counted from 0"):
        texts((2, 3), (2, 4)).take(numbers)


def test_a_batch_of_none_of_the_samples_is_none():
    with pytest.raises(RecordError, match="no sample of the batch is taken"):
        texts((2, 3)).take([])


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_joined_batches_hold_the_samples_of_all_in_order(sizes):
    parts = [texts(size, seed=number) for number, size in enumerate(sizes)]
    whole = join(parts)
    assert samples_of(whole) == [sample for part in parts for sample in samples_of(part)]
    shapes = [group["x"].shape[1:] for group in whole.groups]
    assert all(one != other for one, other in itertools.pairwise(shapes))


def test_batches_of_other_names_are_not_joined():
    with pytest.raises(RecordError, match="only some samples"):
        join([Batch.of(np.zeros((2, 3)), name="a"), Batch.of(np.zeros((2, 4)), name="b")])


def test_arrays_of_two_batches_stand_beside_each_other():
    one, other = Batch.of(np.zeros((2, 3)), name="a"), Batch.of({"a": np.ones((2, 1)), "b": np.ones(2)})
    both = one.beside(other)
    assert both.names == ("a", "b") and both["a"].shape == (2, 1)
    assert both.only(["b"]).names == ("b",)
    with pytest.raises(RecordError, match="no array is called 'c'"):
        both.only(["c"])
    with pytest.raises(RecordError, match="batches of 2 and 3 samples"):
        one.beside(Batch.of(np.zeros(3)))


def test_differences_and_sums_undo_each_other():
    one, other = texts((2, 3), (1, 4)), texts((2, 3), (1, 4), seed=1)
    difference = one.minus(other)
    assert all(array.dtype == np.float32 for group in difference for array in group.values())
    back = other.plus(difference)
    np.testing.assert_allclose(samples_of(back)[0], samples_of(one)[0], rtol=1e-6)


def test_differences_are_of_the_arrays_that_both_have():
    one = Batch.of({"y": np.ones(2), "mask": np.ones(2, dtype=np.int64)})
    assert one.minus(Batch.of(np.ones(2), name="y")).names == ("y",)
    both = one.minus(one)
    assert not both["mask"].any() and not one.plus(both)["y"].any() - 1


def test_equal_infinities_differ_by_nothing():
    inf = np.array([[np.inf, -np.inf, np.inf, 1]])
    other = np.array([[np.inf, -np.inf, 0, 0]])
    difference = Batch.of(inf).minus(Batch.of(other))["x"]
    np.testing.assert_array_equal(difference, [[0, 0, np.inf, 1]])


def test_batches_that_do_not_fit_have_no_difference():
    one = Batch.of(np.zeros((2, 3)))
    with pytest.raises(RecordError, match=r"'x' has shape \(2, 4\); expected \(2, 3\)"):
        one.minus(Batch.of(np.zeros((2, 4))))
    with pytest.raises(RecordError, match="batches of 2 and 1 samples"):
        one.plus(Batch.of(np.zeros((1, 3))))
    with pytest.raises(RecordError, match="at least one array"):
        one.minus(Batch.of(np.zeros((2, 3)), name="y"))


def test_a_function_is_applied_to_every_array():
    assert texts((2, 3), (1, 4)).map(np.zeros_like).groups[1]["x"].tolist() == [[0, 0, 0, 0]]
    assert repr(Batch.of(np.zeros((2, 3)))) == "Batch(x float64[2, 3])"


def test_arrays_take_other_names():
    batch = Batch([{"x": np.zeros((2, 3))}, {"x": np.ones((1, 4))}])
    assert batch.renamed({"x": "image"}).names == ("image",)
    assert batch.renamed({"y": "image"}).names == ("x",)
    assert batch.renamed({"x": "image"}).sizes == (2, 1)
