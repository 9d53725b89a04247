from pathlib import Path

import numpy as np
import pytest
from class_outputs import HEAD, logits_batch
from divergence import log_softmax

from lampq.core.measuring.forward_fisher import forward_fisher
from lampq.core.measuring.reference import measure_reference
from lampq.core.quantizing.coding import Coding
from lampq.core.values.errors import RecordError
from lampq.core.values.input_spec import InputSpec
from lampq.core.values.layer import Layer


class SoftmaxNet:
    """x -> tanh(x A^T) B^T in float64: the smallest model with two layers and closed-form gradients."""

    path = Path("softmax")
    grid = "auto"
    coding = Coding()
    heads = (HEAD,)
    input_specs = (InputSpec(name="x", shape=(None, None)),)

    def __init__(self, first, second):
        self.weights = {"first": first, "second": second}

    def layers(self):
        return tuple(
            Layer.from_weight(name, weight, kind="linear", channel_axis=0)
            for name, weight in self.weights.items()
        )

    def weight(self, name):
        return self.weights[name].astype(np.float32)

    def run(self, batch, weights=None):
        weights = {**self.weights, **(weights or {})}
        batch = np.asarray(batch)
        logits = np.tanh(batch @ weights["first"].T.astype(float)) @ weights["second"].T.astype(float)
        return logits_batch(logits)

    def sweep(self, batch, candidates):
        for name, option, weight in candidates:
            yield name, option, self.run(batch, {name: weight})


def traces_of(net, batch, **settings):
    return forward_fisher(net, measure_reference(net, batch), **settings)


def exact_traces(net, batch):
    """Every sample, every class, every weight: the definition written out."""
    traces = dict.fromkeys(net.weights, 0.0)
    for x in batch:
        hidden = np.tanh(net.weights["first"] @ x)
        p = np.exp(log_softmax(net.weights["second"] @ hidden))
        for label in range(len(p)):
            error = np.eye(len(p))[label] - p
            backward = (net.weights["second"].T @ error) * (1 - hidden**2)
            gradients = {"first": np.outer(backward, x), "second": np.outer(error, hidden)}
            for name, gradient in gradients.items():
                traces[name] += p[label] * (gradient**2).sum() / len(batch)
    return traces


def make_net(seed=0, inputs=5, hidden=4, classes=3, samples=6):
    rng = np.random.default_rng(seed)
    # float32 values, so that the protocol's float32 weights are exactly the model's.
    first = rng.normal(size=(hidden, inputs)).astype(np.float32).astype(np.float64)
    second = rng.normal(size=(classes, hidden)).astype(np.float32).astype(np.float64)
    return SoftmaxNet(first, second), rng.normal(size=(samples, inputs))


def test_many_draws_converge_to_the_exact_traces():
    net, batch = make_net()
    expected = exact_traces(net, batch)
    found = traces_of(net, batch, draws=4000, seed=1)
    for name, trace in expected.items():
        assert found[name] == pytest.approx(trace, rel=0.03)


def test_one_weight_needs_one_draw():
    net, batch = make_net(hidden=1, inputs=1)
    found = traces_of(net, batch, draws=1, relative_step=1e-4)
    # Signs matter only between weights; what is left is the error of the step and float32 rounding.
    assert found["first"] == pytest.approx(exact_traces(net, batch)["first"], rel=1e-3)


def test_the_error_of_the_step_shrinks_with_it():
    net, batch = make_net(hidden=1, inputs=1)
    exact = exact_traces(net, batch)["first"]
    errors = [
        abs(traces_of(net, batch, draws=1, relative_step=step)["first"] / exact - 1)
        for step in (0.3, 0.03, 0.003)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_shards_average_to_the_whole():
    net, batch = make_net(samples=9)
    whole = traces_of(net, batch, draws=2, seed=3)
    parts = [(len(part), traces_of(net, part, draws=2, seed=3)) for part in (batch[:2], batch[2:])]
    for name, trace in whole.items():
        assert sum(n * found[name] for n, found in parts) / len(batch) == pytest.approx(trace, rel=1e-9)


def test_a_layer_of_zeros_has_a_trace_too():
    net, batch = make_net()
    net.weights["second"] = np.zeros_like(net.weights["second"])
    found = traces_of(net, batch, draws=3000)
    assert found["second"] == pytest.approx(exact_traces(net, batch)["second"], rel=0.05)
    assert found["first"] == 0


def test_progress_counts_every_draw():
    net, batch = make_net()
    seen = []
    traces_of(net, batch, draws=3, progress=lambda *report: seen.append(report))
    assert seen == [("Fisher traces", i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("bad", [{"draws": 0}, {"relative_step": 0.0}, {"relative_step": float("nan")}])
def test_impossible_settings_are_refused(bad):
    net, batch = make_net()
    with pytest.raises(RecordError, match=r"draws|relative step"):
        traces_of(net, batch, **bad)


def test_logits_that_are_not_finite_name_the_layer():
    net, batch = make_net()
    run, bad = net.run, logits_batch(np.full((len(batch), 3), np.nan))
    net.run = lambda batch, weights=None: bad if weights else run(batch)
    with pytest.raises(RecordError, match="first"):
        traces_of(net, batch, draws=1)
