import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampq.core.values import fingerprint
from lampq.core.values.errors import RecordError
from lampq.core.values.fingerprint import Fingerprint
from lampq.core.values.layer import Layer
from lampq.core.values.match import match

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


def to_bfloat16(weight):
    """Rounded to nearest, ties to even, by hand."""
    bits = np.ascontiguousarray(weight, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


SAMPLES = {
    "normal": lambda rng, n: rng.normal(0, 0.02, n),
    "uniform": lambda rng, n: rng.uniform(-0.1, 0.1, n),
    "positive": lambda rng, n: rng.exponential(0.05, n),
    "outliers": lambda rng, n: rng.standard_t(3, n) * 0.02,
    "one outlier": lambda rng, n: np.append(rng.normal(0, 0.02, n - 1), 3.7),
}


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("count", [1, 27, 4096, 300_000])
def test_storage_in_16_bits_keeps_the_identity(sample, count):
    rng = np.random.default_rng(count)
    for _ in range(20 if count < 10_000 else 2):
        weight = SAMPLES[sample](rng, count).astype(np.float32)
        mark = Fingerprint.from_array(weight)
        assert mark.matches(Fingerprint.from_array(to_bfloat16(weight)))
        assert mark.matches(Fingerprint.from_array(weight.astype(np.float16)))
        assert mark.equals(Fingerprint.from_array(weight[::-1]))


def test_fresh_weights_of_one_distribution_are_told_apart():
    """As many weights as a large model has, of one shape and one initialization, some stored in bfloat16."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.02, 2048).astype(np.float32) for _ in range(400)]
    table = fingerprint.to_table([Fingerprint.from_array(w) for w in weights])
    stored = fingerprint.to_table([Fingerprint.from_array(to_bfloat16(w)) for w in weights])
    assert np.array_equal(fingerprint.distances(table, stored) <= 1, np.eye(400, dtype=bool))


def test_sums_agree_with_exact_arithmetic():
    weight = np.random.default_rng(0).normal(0, 0.02, 200_003).astype(np.float32)
    exact = [
        math.fsum(f(w) for w in weight.tolist())
        for f in (float, abs, *(lambda w, p=p: w**p for p in (2, 3, 4)))
    ]
    (found,) = fingerprint.to_table([Fingerprint.from_array(weight)])
    np.testing.assert_allclose(found[1:], exact, rtol=1e-11)


def test_weights_of_zeros():
    zeros, ones = np.zeros(8, np.float32), np.ones(8, np.float32)
    assert Fingerprint.from_array(zeros).matches(Fingerprint.from_array(zeros))
    assert not Fingerprint.from_array(zeros).matches(Fingerprint.from_array(ones))


def test_three_parts_add_up_to_the_fused_weight():
    q, k, v = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    parts = Fingerprint.from_array(q) + Fingerprint.from_array(k) + Fingerprint.from_array(v)
    assert parts.matches(Fingerprint.from_array(np.concatenate([q, k, v])))


@given(weights)
def test_text_round_trip(weight):
    mark = Fingerprint.from_array(weight)
    assert Fingerprint.from_text(mark.to_text()).equals(mark)


@pytest.mark.parametrize("text", ["", "s1:3:1:2", "s9:3:1:2:3:4:5", "s1:x:1:2:3:4:5", "s1:3:1:2:nan:4:5"])
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


def parts(seed=0, blocks=3, change=np.asarray):
    rng = np.random.default_rng(seed)
    split, fused = {}, {}
    for block in range(blocks):
        q, k, v, o = rng.normal(0, 0.02, (4, 32, 32)).astype(np.float32)
        split |= {f"{block}.q": q, f"{block}.k": k, f"{block}.v": v, f"{block}.o": o}
        fused |= {f"{block}.qkv": change(np.concatenate([q, k, v])), f"{block}.o": change(o)}
    return layers(**split), layers(**fused)


@pytest.mark.parametrize("turned", [False, True])
def test_a_fused_weight_matches_its_three_parts(turned):
    split, fused = parts()
    found = match(fused, split) if turned else match(split, fused)
    assert found.complete
    assert sorted(m.how for m in found.matches) == ["fused"] * 3 + ["weight"] * 3
    for m in found.matches:
        several, single = (m.right, m.left) if turned else (m.left, m.right)
        names = [split[i].name for i in several]
        (whole,) = (fused[j].name for j in single)
        block = whole[0]
        assert names == ([f"{block}.{n}" for n in "qkv"] if m.how == "fused" else [f"{block}.o"])


def test_parts_match_in_any_order_also_after_a_cast():
    split, _ = parts()
    _, cast = parts(change=to_bfloat16)
    rng = np.random.default_rng(1)
    shuffled = [split[i] for i in rng.permutation(len(split))]
    found = match(shuffled, cast)
    assert found.complete
    for m in found.matches:
        assert {shuffled[i].name[0] for i in m.left} == {cast[m.right[0]].name[0]}


def test_a_fused_weight_of_another_model_finds_no_parts():
    split, _ = parts(0)
    _, fused = parts(1)
    found = match(split, fused)
    assert not found.matches
    assert (len(found.only_left), len(found.only_right)) == (len(split), len(fused))


def test_the_nearest_weight_wins():
    """A copy in bfloat16 is nearer to its origin than a weight that differs in one entry by little."""
    w = np.random.default_rng(0).normal(0, 0.02, 512).astype(np.float32)
    other = w.copy()
    other[0] += 1e-4
    assert Fingerprint.from_array(w).matches(Fingerprint.from_array(other))
    assert match(layers(a=other, b=w), layers(x=w, y=other)).pairs == ((1, 0), (0, 1))


def test_one_weight_and_several_copies_of_it_match_as_copies():
    w, other = np.random.default_rng(0).normal(size=(2, 8, 16)).astype(np.float32)
    found = match(layers(a=w, o=other), layers(x=w, o=other, y=w))
    assert found.complete
    assert [(m.left, m.right, m.how) for m in found.matches] == [
        ((0,), (0, 2), "copies"),
        ((1,), (1,), "weight"),
    ]


def test_equal_weights_in_different_numbers_are_ambiguous():
    w = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    found = match(layers(a=w, b=w), layers(x=w, y=w, b=w))
    assert found.pairs == ((1, 2),)
    assert found.ambiguous == (((0,), (0, 1)),)
    assert not found.complete


def test_names_pair_what_weights_do_not_only_on_request():
    a, b = np.random.default_rng(0).normal(size=(2, 8, 16)).astype(np.float32)
    assert not match(layers(head=a), layers(head=b)).pairs
    (found,) = match(layers(head=a), layers(head=b), by_name=True).matches
    assert found.how == "name" and found.distance > 1
    assert not match(layers(head=a), layers(head=b[:4]), by_name=True).pairs


def test_close_and_equal_pairs_are_those_of_the_whole_table(monkeypatch):
    monkeypatch.setattr(fingerprint, "_PAIRS", 50)
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, scale, 64).astype(np.float32) for scale in (0.02, 0.021, 1.0) for _ in range(30)]
    weights += [np.zeros(64, np.float32)] * 2 + [weights[3], weights[70], -weights[5]]
    left = fingerprint.to_table([Fingerprint.from_array(w) for w in weights])
    right = fingerprint.to_table([Fingerprint.from_array(to_bfloat16(w)) for w in reversed(weights)])
    apart = fingerprint.distances(left, right)
    rows, columns, near = fingerprint.close_pairs(left, right)
    np.testing.assert_array_equal(np.stack([rows, columns]), np.nonzero(apart <= 1))
    np.testing.assert_array_equal(near, apart[rows, columns])
    np.testing.assert_array_equal(
        fingerprint.first_equals(left), fingerprint.equal(left, left).argmax(axis=1)
    )
