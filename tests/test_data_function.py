import json
import sys

import numpy as np
import pytest
from data_samples import TINY

from lampq.adapters.data import (
    Preprocess,
    load_function,
    read_data,
)
from lampq.core.values.errors import AdapterError

MODULE = """
import numpy as np

def pairs():
    for start in range(0, 10, 4):
        count = min(4, 10 - start)
        yield np.full((count, 3, 8, 8), start, np.float32), np.arange(start, start + count)

def bare():
    return [np.zeros((3, 3, 8, 8), np.float32)] * 2

def pixels():
    yield np.full((2, 4, 4), 255, np.uint8), [0, 1]

def endless():
    while True:
        yield np.zeros((7, 3, 8, 8), np.float32)

def smaller():
    for x, y in pairs():
        for i in range(len(x)):
            yield x[i : i + 1], y[i : i + 1]

def nothing():
    return []

def mapping():
    yield {"x": 1}

def three():
    yield 1, 2, 3

def raises():
    yield np.zeros((1, 3, 8, 8), np.float32)
    raise KeyError("column")

def wrong():
    yield np.zeros((1, 3, 9, 9), np.float32)

def sometimes():
    yield np.zeros((1, 3, 8, 8), np.float32)
    yield np.zeros((1, 3, 8, 8), np.float32), [0]

def number():
    return 3

calls = []
def shrinking():
    calls.append(1)
    return [np.zeros((5 - len(calls), 3, 8, 8), np.float32)]

class Loader:
    def batches():
        yield np.zeros((1, 3, 8, 8), np.float32)

constant = 3
"""


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "my_data.py"
    path.write_text(MODULE)
    return path


def test_a_function_is_rebatched_and_read_again(module):
    data = read_data(f"{module}:pairs", input_spec=TINY)
    for _ in range(2):
        batches = list(data.batches(3))
        assert [b.samples for b in batches] == [3, 3, 3, 1]
        assert np.concatenate([b.labels for b in batches]).tolist() == list(range(10))
        assert batches[1].inputs["x"][:, 0, 0, 0].tolist() == [0, 4, 4]
    assert len(data) == 10
    assert data.labels().tolist() == list(range(10))
    assert data.load().inputs["x"].shape == (10, 3, 8, 8)
    assert data.summary()["digest"] == read_data(f"{module}:pairs", input_spec=TINY).summary()["digest"]
    assert data.summary()["digest"] == read_data(f"{module}:smaller", input_spec=TINY).summary()["digest"]
    assert data.check_classes(2) is None
    assert read_data(f"{module}:bare", input_spec=TINY).labels() is None
    bare = read_data(f"{module}:bare", input_spec=TINY).load()
    assert (bare.inputs["x"].shape, bare.labels) == ((6, 3, 8, 8), None)


def test_a_function_may_be_endless_when_samples_are_asked_for(module):
    data = read_data(f"{module}:endless", input_spec=TINY, samples=10)
    assert len(data) == 10
    assert [b.samples for b in data.batches(4)] == [4, 4, 2]


def test_a_function_may_yield_images(module):
    data = read_data(f"{module}:pixels", input_spec=TINY, preprocess=Preprocess(mean=(0.5,)))
    np.testing.assert_allclose(data.load().inputs["x"], 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no samples"),
        ("mapping", "single value"),
        ("three", "yields tuple"),
        ("raises", "KeyError: 'column'"),
        ("wrong", r"1x3x9x9 .*\?x3x8x8"),
        ("sometimes", "labels with some"),
        ("number", "not iterable"),
        ("constant", "int, no function"),
        ("absent", "has no absent"),
    ],
)
def test_functions_that_are_refused(module, name, message):
    with pytest.raises(AdapterError, match=message) as caught:
        read_data(f"{module}:{name}", input_spec=TINY).load()
    assert "my_data" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_function_that_changes_is_noticed(module):
    data = read_data(f"{module}:shrinking", input_spec=TINY)
    assert len(data) == 4
    with pytest.raises(AdapterError, match="3 samples now, 4 before"):
        data.load()


def test_importing_functions(module, monkeypatch):
    monkeypatch.chdir(module.parent)
    assert load_function("my_data:Loader.batches")
    assert load_function("my_data.py:pairs")
    assert load_function("json:dumps") is json.dumps
    assert str(module.parent) not in sys.path
    for text, message in [
        ("no_such_module_here:f", "No module named"),
        (f"{module.parent / 'none.py'}:f", "no such file"),
    ]:
        with pytest.raises(AdapterError, match=message):
            load_function(text)
    (module.parent / "broken.py").write_text("raise RuntimeError('first\\nsecond')")
    with pytest.raises(AdapterError, match="RuntimeError: second"):
        load_function("broken.py:f")
