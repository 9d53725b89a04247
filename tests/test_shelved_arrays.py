"""Arrays that lie on disk where they are too many for memory."""

import pickle
import tracemalloc

import numpy as np
import pytest

from lampq.core.values.shelved_arrays import ShelvedArrays


def arrays():
    random = np.random.default_rng(0)
    return {
        "long": random.normal(size=(40, 30)).astype(np.float32),
        "grouped": random.normal(size=(2, 5, 5)),
        "empty": np.zeros((0, 3), dtype=np.int64),
        "turned": random.normal(size=(6, 4)).T,
    }


@pytest.mark.parametrize("room", [0, 1000, 1 << 20])
def test_what_is_put_in_comes_out_wherever_it_lies(room):
    given = arrays()
    shelved = ShelvedArrays(given, memory_bytes=room)
    assert list(shelved) == list(given)
    assert len(shelved) == 4
    assert "long" in shelved
    assert "none" not in shelved
    for name, array in given.items():
        np.testing.assert_array_equal(shelved[name], array)
        assert shelved[name].dtype == array.dtype


@pytest.mark.parametrize("room", [0, 5000, 1 << 20])
def test_an_array_more_or_another_one_leaves_the_first_mapping_as_it_was(room):
    given = arrays()
    first = ShelvedArrays(given, memory_bytes=room)
    second = first.with_array("more", np.ones(7)).with_array("long", np.zeros((40, 30)))
    assert "more" not in first
    np.testing.assert_array_equal(first["long"], given["long"])
    np.testing.assert_array_equal(second["long"], np.zeros((40, 30)))
    np.testing.assert_array_equal(second["more"], np.ones(7))
    np.testing.assert_array_equal(second["grouped"], given["grouped"])


def test_arrays_on_disk_take_no_memory():
    tracemalloc.start()
    try:
        shelved = ShelvedArrays(memory_bytes=1 << 20)
        for number in range(20):
            shelved = shelved.with_array(f"{number}", np.full((256, 1024), number, dtype=np.float32))
        assert tracemalloc.get_traced_memory()[0] < 2 << 20
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert [float(shelved[f"{number}"].mean()) for number in range(20)] == list(range(20))


def test_other_processes_get_the_arrays():
    given = arrays()
    copy = pickle.loads(pickle.dumps(ShelvedArrays(given, memory_bytes=100)))
    for name, array in given.items():
        np.testing.assert_array_equal(copy[name], array)


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        ShelvedArrays(arrays())["none"]
