import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_models import MODELS, make_batch, read_named, seeded

from lampq.adapters.torch import read
from lampq.adapters.torch.layout import find_layout
from lampq.adapters.torch.recorder import record
from lampq.core.values.errors import AdapterError


def recorded(name, batch, grad=False):
    module = MODELS[name][0]()
    weights = {n: t.detach() for n, t in (*module.named_parameters(), *module.named_buffers())}

    def forward(weights, inputs):
        return {"y": torch.func.functional_call(module, dict(weights), (inputs["x"],))}

    trainable = dict(module.named_parameters())
    leaves = {n: t.clone().requires_grad_(n in trainable) for n, t in weights.items()}
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.set_grad_enabled(grad):
            tape, outputs = record(forward, leaves if grad else weights, {"x": batch}, module=module)
            expected = forward(weights, {"x": other_batch(name)})["y"].detach()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return module, weights, tape, outputs["y"], expected


def other_batch(name):
    return torch.from_numpy(make_batch(MODELS[name][1], seed=9))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_replay_gives_the_very_numbers_of_the_module(name, grad):
    batch = torch.from_numpy(make_batch(MODELS[name][1]))
    _, weights, tape, logits, expected = recorded(name, batch, grad)
    assert tape.obstacle is None
    assert tape.random is None
    with torch.no_grad():
        assert torch.equal(tape.run(weights, {"x": batch.clone()})["y"], logits)
        found = tape.run(weights, {"x": other_batch(name)})["y"]
    # Without gradients torch may pick another kernel for the module itself, and round differently.
    assert torch.allclose(found, expected, atol=1e-6) if grad else torch.equal(found, expected)


@pytest.mark.parametrize("name", MODELS)
def test_values_kept_at_any_cut_finish_right_again_and_again(name):
    batch = torch.from_numpy(make_batch(MODELS[name][1]))
    _, weights, tape, logits, _ = recorded(name, batch)
    cuts = tape.cuts()
    assert cuts[0]
    assert sum(cuts) > len(cuts) / 2
    with torch.no_grad():
        for cut in [i for i, possible in enumerate(cuts) if possible]:
            values = tape.play(tape.start(weights, {"x": batch}), end=cut)
            for _ in range(2):
                assert torch.equal(tape.results(tape.play(values, begin=cut))["y"], logits)


def test_operators_in_place_rule_cuts_out():
    _, weights, tape, logits, _ = recorded("convolutions", torch.from_numpy(make_batch((3, 8, 8))))
    assert not all(tape.cuts())
    # At a cut that is ruled out a second use would indeed see overwritten memory.
    with torch.no_grad():
        wrong = []
        for cut in [i for i, possible in enumerate(tape.cuts()) if not possible]:
            images = torch.from_numpy(make_batch((3, 8, 8)))
            values = tape.play(tape.start(weights, {"x": images}), end=cut)
            tape.play(values, begin=cut)
            wrong.append(not torch.equal(tape.results(tape.play(values, begin=cut))["y"], logits))
    assert any(wrong)


def test_gradients_flow_through_a_replay():
    batch = torch.from_numpy(make_batch((3, 8, 8)))
    module, weights, tape, _, _ = recorded("packed", batch, grad=True)
    leaves = {n: t.clone().requires_grad_() for n, t in weights.items()}
    tape.run(leaves, {"x": batch})["y"].square().sum().backward()
    module(batch).square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(leaves[name].grad, parameter.grad, rtol=1e-4, atol=1e-5)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 16)
        self.c = nn.Linear(8, 16)

    def forward(self, x):
        x = self.a(x)
        return self.b(x) if x.mean() > 0 else self.c(x)


class Outside(nn.Module):
    """Goes through NumPy, where no recorder can follow."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 16)

    def forward(self, x):
        return self.a(x) + torch.from_numpy(np.tanh(x.detach().numpy()).repeat(2, axis=1))


@pytest.mark.parametrize(
    ("build", "reason"), [(Branching, "_local_scalar_dense"), (Outside, "outside torch")]
)
def test_a_pass_that_depends_on_values_is_run_as_a_whole(build, reason):
    module = seeded(build)
    model = read(module, input_shape=(8,), batch_size=2)
    assert reason in model.variant.runtime.obstacle
    rng = np.random.default_rng(0)
    batch = np.concatenate([rng.normal(size=(2, 8)) + shift for shift in (-3, 3)]).astype(np.float32)
    expected = torch.cat([module(torch.from_numpy(part)) for part in (batch[:2], batch[2:])])
    np.testing.assert_array_equal(model.run(batch), expected.detach().numpy())
    weight = rng.normal(size=(8, 8) if build is Branching else (16, 8)).astype(np.float32)
    ((_, _, logits),) = model.sweep(batch, [("a", 0, weight)])
    np.testing.assert_array_equal(logits, model.with_weights({"a": weight}).run(batch))


class Noisy(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 16))
        self.how = how

    def forward(self, x):
        x = self.inner(x)
        if self.how == "dropout":
            return functional.dropout(x, 0.1)
        return x + (torch.rand_like(x) if self.how == "rand" else random.random())


@pytest.mark.parametrize(
    ("how", "words"),
    [("dropout", "native_dropout|bernoulli_"), ("rand", "rand_like"), ("python", "two results")],
)
def test_random_passes_are_named(how, words):
    with pytest.raises(AdapterError, match=words):
        read(seeded(Noisy, how), input_shape=(8,)).layers()


def test_dropout_of_a_module_left_in_training_mode_is_switched_off():
    module = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5)).train()
    batch = make_batch((8,)).astype(np.float32)
    np.testing.assert_array_equal(
        read(module, input_shape=(8,)).run(batch), module[0](torch.from_numpy(batch)).detach().numpy()
    )


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("packed", {"patch_embed": None, "in_proj": 1, "head": None}),
        ("windows", {"qkv": None, "reduction": None}),
    ],
)
def test_layouts_are_measured(name, inner):
    model, _ = read_named(name)
    for layer in model.layers():
        key = layer.name.rpartition(".")[2]
        if key in inner:
            layout = model.variant.runtime.findings.layouts[model.parameters[layer.name], 0]
            assert layout.inner == inner[key]


def test_find_layout_reads_the_pattern_of_changed_rows():
    def flags(text):
        return torch.tensor([c == "1" for c in text])

    assert find_layout([flags("11110000"), flags("00001111")], 2).inner is None
    assert find_layout([flags("10101010"), flags("01010101")], 2).inner == 1
    assert find_layout([flags("11001100"), flags("00110011")], 2).inner == 2
    # One constant row per sample (a class token) hides nothing.
    assert find_layout([flags("00101010"), flags("00010101")], 2).inner == 1
    assert find_layout([flags("10010000"), flags("00001111")], 2).inner is None
    assert find_layout([flags("11110000"), flags("11111111")], 2) is None
    assert find_layout([flags("111")], 2) is None


def test_samples_that_mix_are_noticed():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 16)

        def forward(self, x):
            x = self.a(x)
            return self.b(x - x.mean(0, keepdim=True))

    model = read(seeded(Mixing), input_shape=(8,))
    assert model.variant.runtime.findings.samples_mix
    assert not read_named("packed")[0].variant.runtime.findings.samples_mix
