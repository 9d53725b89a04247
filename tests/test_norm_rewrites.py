"""Rewrites of normalizations leave the float function as it was, and even out what is rounded."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_models import read_named, seeded

from lampq.adapters.torch import read
from lampq.adapters.torch.norm_rewrites import rewrite_norms
from lampq.core.treatments.rewrites import Rewrite, clipped, one_range
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, RecordError


class PreNorm(nn.Module):
    """A normalization that two layers read, one that a residual branch reads too, and one without affine part."""

    def __init__(self, dim=8):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.plain = nn.LayerNorm(dim, elementwise_affine=False)
        self.left, self.right, self.head = nn.Linear(dim, 8), nn.Linear(dim, 8), nn.Linear(dim, 8)
        self.third = nn.Linear(dim, 8)
        nn.init.normal_(self.norm1.weight, 1.0, 2.0)
        nn.init.normal_(self.norm1.bias)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.left(y) * self.right(y)
        z = self.norm2(x)
        return self.head(self.plain(z + self.third(z)))


@pytest.mark.parametrize("evening", [one_range, clipped])
def test_a_rewritten_model_computes_the_same(evening):
    model = read(seeded(PreNorm), input_shape=(5, 8))
    x = np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)
    before = np.asarray(model.run(x)).copy()
    weight = model.module.norm1.weight.detach().clone()
    with pytest.raises(AdapterError, match="no normalization can be rewritten exactly"):
        # The residual branch reads its only normalization too.
        rewrite_norms(read(seeded(Shared), input_shape=(5, 8)), Batch([{"x": x}]), evening)
    left = rewrite_norms(model, Batch([{"x": x}]), evening)
    np.testing.assert_allclose(np.asarray(model.run(x)), before, atol=1e-4)
    assert "in the model reads it too" in left["norm2.weight"] and "no scale and offset" in left["plain"]
    if evening is one_range:
        assert not torch.allclose(weight, model.module.norm1.weight)


class Shared(PreNorm):
    def forward(self, x):
        y = self.norm1(x)
        return self.head(y + self.left(y))


def test_post_norm_models_name_the_second_reader():
    model, batch = read_named("packed")
    before = np.asarray(model.run(batch)).copy()
    left = rewrite_norms(model, Batch([{"x": batch}]), one_range)
    # The last one is read by the head alone.
    assert len(left) == 3 and "transformer.layers.1.norm2.weight" not in left
    assert "add in transformer.layers.0 reads it too" in left["transformer.layers.0.norm1.weight"]
    np.testing.assert_allclose(np.asarray(model.run(batch)), before, atol=1e-4)


def test_a_layer_that_is_used_twice_is_left_alone():
    model = read(seeded(Twice), input_shape=(5, 8))
    x = np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)
    with pytest.raises(AdapterError, match=r"left.weight behind it is used elsewhere too"):
        rewrite_norms(model, Batch([{"x": x}]), one_range)


class Twice(PreNorm):
    def forward(self, x):
        return self.left(self.left(self.norm1(x)))


@given(seed=st.integers(0, 2**32 - 1))
def test_the_algebra_is_exact_for_any_ratio_and_shift(seed):
    rng = np.random.default_rng(seed)
    rewrite = Rewrite(ratio=rng.uniform(0.1, 10, 6), shift=rng.normal(size=6))
    n, gamma, beta = rng.normal(size=(7, 6)), rng.normal(size=6), rng.normal(size=6)
    weight, bias = rng.normal(size=(3, 6)), rng.normal(size=3)
    scale, offset = rewrite.of_norm(gamma, beta)
    folded, moved = rewrite.of_layer(weight, bias)
    np.testing.assert_allclose((n * scale + offset) @ folded.T + moved, (n * gamma + beta) @ weight.T + bias)


def test_ranges_are_evened_out_by_hand():
    low, high = np.array([-1.0, -4.0, 0.0]), np.array([1.0, 4.0, 2.0])
    rewrite = one_range(low, high)
    ends = (low - rewrite.shift) / rewrite.ratio, (high - rewrite.shift) / rewrite.ratio
    np.testing.assert_allclose(ends[1] - ends[0], 4.0)
    np.testing.assert_allclose(ends[0], ends[0][0])
    largest = np.ones(20)
    largest[3] = 9.0
    found = clipped(-largest, largest)
    threshold = largest.mean() + 2 * largest.std()
    assert found.ratio[3] == pytest.approx(9 / threshold) and (np.delete(found.ratio, 3) == 1).all()
    assert not found.shift.any()


def test_ranges_that_cannot_be_are_refused():
    with pytest.raises(RecordError, match="all channels are constant"):
        one_range(np.ones(3), np.ones(3))
    with pytest.raises(RecordError, match="without a finite range"):
        clipped(np.array([]), np.array([]))
