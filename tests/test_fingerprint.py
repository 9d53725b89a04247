import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampq.core.errors import RecordError
from lampq.core.fingerprint import Fingerprint
from lampq.core.layer import Layer
from lampq.core.match import match

weights = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(0, 0.02, (48, 3, 5)).astype(np.float32)
)


@given(weights)
def test_layout_does_not_matter(weight):
    mark = Fingerprint.from_array(weight)
    assert mark.matches(Fingerprint.from_array(weight.transpose(2, 0, 1)))
    assert mark.matches(Fingerprint.from_array(np.ascontiguousarray(weight.T)))
    assert mark.matches(Fingerprint.from_array(weight.reshape(15, 48)))


@given(weights, st.integers(0, 2**32 - 1))
def test_another_weight_of_the_same_size_and_spread_differs(weight, seed):
    other = np.random.default_rng(seed).permutation(weight.ravel()) * np.float32(1.003)
    assert not Fingerprint.from_array(weight).matches(Fingerprint.from_array(other))


def test_float16_storage_keeps_the_identity():
    weight = np.random.default_rng(0).normal(0, 0.02, (768, 768)).astype(np.float32)
    assert Fingerprint.from_array(weight).matches(Fingerprint.from_array(weight.astype(np.float16)))


def test_three_parts_add_up_to_the_fused_weight():
    q, k, v = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    parts = Fingerprint.from_array(q) + Fingerprint.from_array(k) + Fingerprint.from_array(v)
    assert parts.matches(Fingerprint.from_array(np.concatenate([q, k, v])))


@given(weights)
def test_text_round_trip(weight):
    mark = Fingerprint.from_array(weight)
    assert Fingerprint.from_text(mark.to_text()).matches(mark, tolerance=1e-8)


@pytest.mark.parametrize("text", ["", "s1:3:1:2", "s9:3:1:2:3:4:5", "s1:x:1:2:3:4:5"])
def test_malformed_text_is_refused(text):
    with pytest.raises(RecordError):
        Fingerprint.from_text(text)


def layers(**named):
    return [Layer.from_weight(name, w, kind="linear", channel_axis=0) for name, w in named.items()]


def test_layers_match_by_weight_whatever_their_names_and_layout():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 8, 16)).astype(np.float32)
    found = match(layers(a=a, b=b, c=c), layers(x=c.T, y=a.T))
    assert found.pairs == ((2, 0), (0, 1))
    assert found.only_left == (1,)
    assert found.renamed == 2
    assert not found.complete


def test_equal_weights_are_told_apart_by_name_then_by_order():
    w = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    assert match(layers(a=w, b=w), layers(b=w, a=w)).pairs == ((1, 0), (0, 1))
    assert match(layers(a=w, b=w), layers(x=w, y=w)).pairs == ((0, 0), (1, 1))
