import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch_models import MODELS, fisher_of, make_batch, read_named, seeded

from lampq.adapters.torch import read, replay
from lampq.adapters.torch.fisher import FisherSums, fisher_sums
from lampq.adapters.torch.gradient_rows import gradient_rows
from lampq.core.measuring.forward_fisher import forward_fisher
from lampq.core.measuring.reference import measure_reference
from lampq.core.readouts.draws import Draws
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError, LampqError, RecordError


def naive(name, batch, weights_of):
    """The definition: for every sample and class, the squared gradient of log p, weighted by `weights_of(p, n)`."""
    module = MODELS[name][0]()
    model, _ = read_named(name)
    parameters = {layer: module.get_parameter(parameter) for layer, parameter in model.parameters.items()}
    squares = {layer: np.zeros(tuple(p.shape)) for layer, p in parameters.items()}
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for n in range(len(batch)):
            log_p = module(torch.from_numpy(batch[n : n + 1])).double().log_softmax(-1)[0]
            weights = weights_of(log_p.detach().exp().numpy(), n)
            for label in np.flatnonzero(weights):
                gradients = torch.autograd.grad(
                    log_p[label], list(parameters.values()), retain_graph=True, allow_unused=True
                )
                for layer, gradient in zip(parameters, gradients, strict=True):
                    squares[layer] += weights[label] * gradient.double().numpy() ** 2 / len(batch)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return squares


@pytest.mark.parametrize("batch_size", [2, 8])
@pytest.mark.parametrize("name", MODELS)
def test_exact_traces_equal_a_double_loop(name, batch_size):
    model, batch = read_named(name)
    expected = naive(name, batch, lambda p, n: p)
    found = fisher_of(model, batch, labels="exact", batch_size=batch_size)
    assert list(found.traces()) == list(model.parameters)
    for layer, squares in expected.items():
        assert found.traces()[layer] == pytest.approx(squares.sum(), rel=1e-4)


def test_empirical_traces_take_the_labels_of_the_data():
    model, batch = read_named("packed")
    labels = np.array([0, 3, 1, 1, 2])
    expected = naive("packed", batch, lambda p, n: np.eye(4)[labels[n]])
    found = fisher_of(model, batch, labels="data", truth=labels, batch_size=3)
    for layer, squares in expected.items():
        assert found.traces()[layer] == pytest.approx(squares.sum(), rel=1e-4)


@pytest.mark.parametrize("labels", ["probe", "sampled"])
def test_drawn_labels_converge_to_the_exact_traces(labels):
    model, batch = read_named("windows")
    exact = fisher_of(model, batch, labels="exact").traces()
    found = fisher_of(model, batch, labels=labels, count=300, seed=5).traces()
    for layer, trace in exact.items():
        assert found[layer] == pytest.approx(trace, rel=0.1)


def test_the_default_is_exact_where_classes_are_few():
    model, batch = read_named("windows")
    exact = fisher_of(model, batch, labels="exact").traces()
    assert fisher_of(model, batch, count=2).traces() == exact
    assert fisher_of(model, batch, count=1).traces() != exact


def test_activation_traces_equal_gradients_of_each_layers_own_input():
    """Two layers read the same tensor; each is charged with what flows back through itself alone."""

    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(8, 16)

        def parts(self, x, y, z):
            return self.stem(x), lambda s: torch.tanh(self.left(s)) + y, lambda s: self.right(s) + z

        def forward(self, x):
            s = torch.tanh(self.stem(x))
            return torch.tanh(self.left(s)) + self.right(s)

    module = seeded(Fork)
    batch = make_batch((8,)).astype(np.float32)
    batch = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    model = read(module, input_shape=(8,))
    found = fisher_of(model, batch, labels="exact").activation_traces()
    expected = dict.fromkeys(("stem", "left", "right"), 0.0)
    for x in torch.from_numpy(batch):
        inputs = [x.clone().requires_grad_()]
        s = torch.tanh(module.stem(inputs[0])).detach()
        inputs += [s.clone().requires_grad_(), s.clone().requires_grad_()]
        whole = module(inputs[0]).double().log_softmax(-1)
        split = torch.tanh(module.left(inputs[1])) + module.right(inputs[2])
        split = split.double().log_softmax(-1)
        for label in range(16):
            p = float(whole[label].detach().exp())
            for name, at, log_p in zip(expected, inputs, (whole, split, split), strict=True):
                (gradient,) = torch.autograd.grad(log_p[label], at, retain_graph=True)
                expected[name] += p * float(gradient.double().square().sum()) / len(batch)
    for name, trace in expected.items():
        assert found[name] == pytest.approx(trace, rel=1e-4)


def test_sums_of_shards_are_those_of_the_whole():
    model, batch = read_named("packed")
    whole = fisher_of(model, batch, labels="probe", seed=2)
    shards = [np.arange(0, 5, 2), np.arange(1, 5, 2)]
    parts = [fisher_of(model, batch[i], labels="probe", seed=2, samples=i, batch_size=1) for i in shards]
    joined = parts[0] + parts[1]
    assert joined.samples == whole.samples == 5
    for layer in model.parameters:
        assert joined.weight[layer] == pytest.approx(whole.weight[layer], rel=1e-5)
        assert joined.activation[layer] == pytest.approx(whole.activation[layer], rel=1e-5)
    with pytest.raises(RecordError, match="different layers"):
        _ = joined + FisherSums(samples=1, weight={"other": 1.0})


def test_mixed_samples_are_taken_one_by_one():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 16)

        def forward(self, x):
            x = self.a(x)
            return self.b(x + x.mean(0, keepdim=True))

    module = seeded(Mixing)
    model = read(module, input_shape=(8,))
    batch = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    one_by_one = [fisher_of(model, batch[i : i + 1], labels="exact").weight for i in range(3)]
    found = fisher_of(model, batch, labels="exact").weight
    for layer in ("a", "b"):
        assert found[layer] == pytest.approx(sum(weight[layer] for weight in one_by_one), rel=1e-6)


def test_a_pass_that_branches_on_values_is_measured_too():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(8, 16)

        def forward(self, x):
            x = self.a(x)
            return self.b(x) if x.mean() > 0 else self.c(x)

    module = seeded(Branching)
    model = read(module, input_shape=(8,))
    batch = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    found = fisher_of(model, batch, labels="exact", batch_size=1).weight
    expected = 0.0
    for x in torch.from_numpy(batch):
        log_p = module(x[None]).double().log_softmax(-1)[0]
        for label in range(16):
            (gradient,) = torch.autograd.grad(log_p[label], module.a.weight, retain_graph=True)
            expected += float(log_p[label].detach().exp() * gradient.double().square().sum())
    assert found["a"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_comes_close(dtype):
    model, batch = read_named("packed")
    low, _ = read_named("packed", autocast=dtype)
    exact = fisher_of(model, batch, labels="exact")
    found = fisher_of(low, batch, labels="exact")
    for layer, trace in exact.traces().items():
        assert found.traces()[layer] == pytest.approx(trace, rel=0.05)
        assert found.activation_traces()[layer] == pytest.approx(exact.activation_traces()[layer], rel=0.05)


def test_forward_only_traces_agree_with_gradients():
    model, batch = read_named("windows")
    exact = fisher_of(model, batch, labels="exact").traces()
    found = forward_fisher(model, measure_reference(model, batch), draws=300, seed=1, relative_step=1e-2)
    for layer, trace in exact.items():
        assert found[layer] == pytest.approx(trace, rel=0.15)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": "data"}, "labelled data"),
        ({"labels": "data", "truth": np.array([0, 1, 2, 3, 4])}, "4 classes"),
        ({"labels": "wild"}, "none of"),
        ({"samples": [1, 2]}, "2 sample numbers for 5"),
    ],
)
def test_impossible_requests_are_refused(settings, words):
    model, batch = read_named("packed")
    with pytest.raises(LampqError, match=words):
        fisher_of(model, batch, **settings)


def test_gradients_that_are_not_finite_name_the_layer():
    model, batch = read_named("packed")
    reference = measure_reference(model, batch)
    batch = batch.copy()
    batch[0, 0, 0, 0] = np.inf
    with pytest.raises(AdapterError, match="patch_embed"):
        fisher_sums(model.variant, Batch.of(batch, name="input"), reference.readout, Draws(labels="probe"))


def test_progress_is_told_per_batch():
    model, batch = read_named("packed")
    seen = []
    fisher_of(model, batch, batch_size=2, progress=lambda *report: seen.append(report))
    assert seen == [("Fisher information", done, 5) for done in (2, 4, 5)]


@pytest.mark.parametrize("activations", [False, True], ids=["weights", "activations"])
def test_no_more_than_two_passes_are_in_memory_however_many_there_are(activations, monkeypatch):
    """The one that is over, until whoever reads it has moved on, and the next; no collector is needed for it."""
    model, _ = read_named("packed")
    batch = np.random.default_rng(0).normal(size=(10, 3, 8, 8)).astype(np.float32)
    reference = measure_reference(model, batch)
    passes, most = [], []

    class Counted(replay.Pass):
        def __init__(self, *args):
            passes.append(weakref.ref(self))
            super().__init__(*args)
            most.append(sum(one() is not None for one in passes))

    monkeypatch.setattr(replay, "Pass", Counted)
    gc.disable()
    try:
        fisher_sums(
            model.variant, reference.inputs, reference.readout, Draws(), batch_size=2, activations=activations
        )
        candidates = {layer.name: ([model.weight(layer.name)], [None]) for layer in model.layers()}
        for _ in gradient_rows(
            model.variant, reference.inputs, candidates, reference.readout, Draws(), batch_size=2
        ):
            pass
    finally:
        gc.enable()
    assert len(most) == 10
    assert max(most) == 2
