"""Rewrites of normalizations leave the float function as it was, and even out what is rounded."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy_model import NumpyModel
from torch import nn
from torch_models import read_named, seeded

import lampq
from lampq.adapters.torch import read
from lampq.cli import main
from lampq.core.treatments.rewrites import clipped, one_range, rewrite_of
from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.norm_rewrite import NormRewrite
from lampq.core.values.rewrite_kinds import KINDS


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


@pytest.fixture
def prenorm():
    model = read(seeded(PreNorm), input_shape=(5, 8))
    return model, np.random.default_rng(0).normal(size=(16, 5, 8)).astype(np.float32)


def refusals(model, batch):
    return {norm.name: norm.why_not for norm in model.norms(batch) if norm.why_not}


@pytest.mark.parametrize("kind", KINDS)
def test_a_rewritten_model_computes_the_same_and_leaves_the_module_alone(prenorm, kind):
    model, x = prenorm
    before = np.asarray(model.run(x)).copy()
    gamma = model.module.norm1.weight.detach().clone()
    free = [norm for norm in model.norms(x) if not norm.why_not]
    assert [(norm.name, norm.layers) for norm in free] == [("norm1", ("left", "right"))]
    rewritten = model.with_rewrites([rewrite_of(free[0], kind)])
    np.testing.assert_allclose(np.asarray(rewritten.run(x)), before, atol=1e-4)
    assert not np.allclose(rewritten.weight("left"), model.weight("left"))
    assert torch.equal(gamma, model.module.norm1.weight) and model.rewrites == ()
    assert rewritten.rewrites[0].norm == "norm1"


def test_channels_have_one_range_behind_a_rewrite(prenorm):
    model, x = prenorm
    (norm,) = (norm for norm in model.norms(x) if not norm.why_not)
    (even,) = (n for n in model.with_rewrites([rewrite_of(norm, "one_range")]).norms(x) if n.name == "norm1")
    np.testing.assert_allclose(even.high - even.low, (even.high - even.low).mean(), rtol=1e-4)


class Shared(PreNorm):
    def forward(self, x):
        y = self.norm1(x)
        return self.head(y + self.left(y))


class Twice(PreNorm):
    def forward(self, x):
        return self.left(self.left(self.norm1(x)))


class OneNormTwice(PreNorm):
    def forward(self, x):
        return self.right(self.norm1(self.left(self.norm1(x))))


class Mixer(PreNorm):
    """A layer over tokens: channels of the normalization are rows of its input."""

    def forward(self, x):
        return self.head(self.left(self.norm1(x).transpose(1, 2).contiguous()).transpose(1, 2))


def test_what_stands_against_a_rewrite_is_named(prenorm):
    assert "in the model reads it too" in refusals(*prenorm)["norm2"]
    assert "no scale and offset" in refusals(*prenorm)["plain"]
    model, batch = read_named("packed")
    left = refusals(model, batch)
    # The last one is read by the head alone.
    assert len(left) == 3 and "transformer.layers.1.norm2" not in left
    assert "add in transformer.layers.0 reads it too" in left["transformer.layers.0.norm1"]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (Shared, "norm1: add in the model reads it too"),
        (Twice, "norm1: the layer left.weight behind it is used elsewhere too"),
        (OneNormTwice, "norm1.weight is used elsewhere too"),
    ],
)
def test_a_model_without_a_norm_to_rewrite_is_refused_in_one_line(build, says):
    model, choices = read(seeded(build), input_shape=(5, 8)), {"bits": (4,), "act_bits": 4, "fisher_draws": 0}
    x = np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)
    with pytest.raises(AdapterError, match=f"no normalization can be rewritten exactly .*{says}"):
        lampq.profile(model, x, rewrites="one_range", **choices)
    # Where each is measured, none is as good as any.
    assert lampq.profile(model, x, rewrites="measured", **choices).rewrites == ()


def test_a_rewrite_that_would_change_the_model_is_refused():
    model = read(seeded(Mixer), input_shape=(8, 8))
    x = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    (norm,) = model.norms(x)
    with pytest.raises(AdapterError, match="rewriting norm1 would change the float model: output is off by"):
        model.with_rewrites([rewrite_of(norm, "one_range")])


def test_rewrites_of_other_models_are_refused(prenorm):
    model, _ = prenorm
    for norm, channels, says in (
        ("norm9", 8, "norm9 cannot be rewritten: the model has no such normalization"),
        ("norm2", 8, "norm2 cannot be rewritten: .* reads it too"),
        ("norm1", 7, "of 7 channels, and the model has 8"),
    ):
        with pytest.raises(AdapterError, match=says):
            model.with_rewrites(
                [NormRewrite.of(norm, "one_range", np.full(channels, 2.0), np.zeros(channels))]
            )
    with pytest.raises(RecordError, match="give --act-bits too"):
        lampq.Measurement(rewrites="one_range")
    numpy_model = NumpyModel.random()
    with pytest.raises(AdapterError, match="models are not rewritten; leave out --rewrites"):
        lampq.profile(numpy_model, np.zeros((2, 8), np.float32), bits=(4,), act_bits=8, rewrites="measured")


@pytest.mark.parametrize("rewrites", ["measured", "clipped", "one_range"])
def test_files_and_plans_reproduce_what_was_rewritten(prenorm, tmp_path, rewrites):
    model, x = prenorm
    file = tmp_path / "q.safetensors"
    plan = lampq.quantize(
        model,
        x,
        file,
        average_bits=4,
        bits=(4,),
        act_bits=(4,),
        sites="all",
        rewrites=rewrites,
        rounds=0,
        fisher_draws=0,
    )
    assert plan.rewrites or rewrites == "measured"
    plan.write(tmp_path / "p.json")
    again = lampq.Plan.read(tmp_path / "p.json")
    assert again.rewrites == plan.rewrites
    judged = lampq.evaluate(model, x, plan=again, calibration=x).kl
    written = read(seeded(PreNorm), weights=file)
    assert lampq.evaluate(written, x, reference=model).kl == pytest.approx(judged, rel=1e-3)
    lampq.apply(model, again, tmp_path / "again.safetensors", batch=x)
    other = read(seeded(PreNorm), weights=tmp_path / "again.safetensors")
    np.testing.assert_array_equal(np.asarray(other.run(x)), np.asarray(written.run(x)))
    if plan.rewrites:
        with pytest.raises(
            AdapterError, match=r"rewrites normalizations .norm1 first., which is done to PyTorch"
        ):
            lampq.apply(NumpyModel.random(), again, tmp_path / "other.npz")


def test_profiles_carry_rewrites_and_merge_only_with_their_like(prenorm, tmp_path):
    model, x = prenorm
    choices = {"bits": (4,), "act_bits": (4,), "fisher_draws": 0}
    profile = lampq.profile(model, x, rewrites="one_range", **choices)
    profile.write(tmp_path / "p.json")
    assert lampq.Profile.read(tmp_path / "p.json").rewrites == profile.rewrites
    assert lampq.plan(profile, average_bits=4).rewrites == profile.rewrites
    other = lampq.profile(model, x + 1, **choices)
    with pytest.raises(RecordError, match=r"of different models|rewrite different normalizations"):
        lampq.merge([profile, other])


@given(seed=st.integers(0, 2**32 - 1))
def test_the_algebra_is_exact_for_any_ratio_and_shift(seed):
    rng = np.random.default_rng(seed)
    rewrite = NormRewrite.of("norm", "any", rng.uniform(0.1, 10, 6), rng.normal(size=6))
    n, gamma, beta = rng.normal(size=(7, 6)), rng.normal(size=6), rng.normal(size=6)
    weight, bias = rng.normal(size=(3, 6)), rng.normal(size=3)
    scale, offset = rewrite.of_norm(gamma, beta)
    folded, moved = rewrite.of_layer(weight, bias)
    np.testing.assert_allclose((n * scale + offset) @ folded.T + moved, (n * gamma + beta) @ weight.T + bias)


def test_ranges_are_evened_out_by_hand():
    low, high = np.array([-1.0, -4.0, 0.0]), np.array([1.0, 4.0, 2.0])
    ratio, shift = one_range(low, high)
    ends = (low - shift) / ratio, (high - shift) / ratio
    np.testing.assert_allclose(ends[1] - ends[0], 4.0)
    np.testing.assert_allclose(ends[0], ends[0][0])
    largest = np.ones(20)
    largest[3] = 9.0
    ratio, shift = clipped(-largest, largest)
    threshold = largest.mean() + 2 * largest.std()
    assert ratio[3] == pytest.approx(9 / threshold) and (np.delete(ratio, 3) == 1).all()
    assert not shift.any()


def test_ranges_that_cannot_be_are_refused():
    with pytest.raises(RecordError, match="all channels are constant"):
        one_range(np.ones(3), np.ones(3))
    with pytest.raises(RecordError, match="without a finite range"):
        clipped(np.array([]), np.array([]))


FACTORY = """
from torch_models import seeded
from test_norm_rewrites import PreNorm

def build():
    return seeded(PreNorm)
"""


def test_the_command_line_rewrites_and_exports_what_it_rewrote(prenorm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(FACTORY)
    _, x = prenorm
    np.savez("x.npz", x=x)
    common = ["model.py:build", "--data", "x.npz", "--input-shape", "5x8"]
    measured = [*common, "--bits", "8", "--act-bits", "8", "--rewrites", "one_range", "-o", "profile.json"]
    assert main(["profile", *measured]) == 0
    assert main(["plan", "profile.json", "--avg-bits", "8", "-o", "plan.json"]) == 0
    assert lampq.Plan.read(tmp_path / "plan.json").rewrites
    for file in ("profile.json", "plan.json"):
        facts = lampq.inspect(tmp_path / file).facts
        assert (facts["rounding"], facts["rewrites"][0]) == ("nearest", "norm1 (one_range)")
    assert main(["apply", common[0], "plan.json", *common[1:], "--to", "onnx", "-o", "q.onnx"]) == 0
    before = np.asarray(prenorm[0].run(x))
    np.testing.assert_allclose(np.asarray(lampq.read("q.onnx").run(x)), before, atol=0.1)
    assert main(["apply", common[0], "plan.json", *common[1:], "--simulate", "-o", "s.onnx"]) == 0
    np.testing.assert_allclose(np.asarray(lampq.read("s.onnx").run(x)), before, atol=0.1)
    assert main(["apply", "q.onnx", "plan.json", "-o", "again.onnx"]) == 2
    assert "rewrites normalizations (norm1 first)" in capsys.readouterr().err
