"""Which kind of Fisher trace a profile holds, what it says of itself, and how requests go wrong."""

import numpy as np
import pytest
from tflite_models import fixture, inputs_for
from torch_models import fisher_of, read_named

import lampq
from lampq import adapters
from lampq.core.measuring.forward_fisher import forward_fisher
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.traces import measure_traces
from lampq.core.readouts.draws import Draws
from lampq.core.values.errors import RecordError


def test_profiles_hold_the_traces_of_gradients_where_there_are_some():
    model, batch = read_named("packed")
    found = lampq.profile(model, batch, bits=(4,), fisher_draws=3)
    assert found.provenance["fisher"] == {"kind": "true", "note": ""}
    expected = fisher_of(model, batch, count=3)
    for layer in found.layers:
        assert layer.fisher == pytest.approx(expected.traces()[layer.name], rel=1e-5)
        assert layer.activation_fisher == pytest.approx(expected.activation_traces()[layer.name], rel=1e-5)


def test_forward_passes_and_none_at_all_can_be_asked_for():
    model, batch = read_named("packed")
    found = lampq.profile(model, batch, bits=(4,), fisher="forward", fisher_draws=2, seed=4)
    expected = forward_fisher(model, measure_reference(model, batch), draws=2, seed=4)
    assert found.provenance["fisher"] == {"kind": "forward", "note": ""}
    assert {layer.name: layer.fisher for layer in found.layers} == pytest.approx(expected)
    without = lampq.profile(model, batch, bits=(4,), fisher_draws=0)
    assert without.provenance["fisher"] is None
    assert all(layer.fisher is None for layer in without.layers)


def test_labels_make_empirical_traces():
    model, batch = read_named("packed")
    labels = np.array([0, 1, 2, 3, 0])
    found = lampq.profile(model, batch, bits=(4,), fisher="empirical", labels=labels)
    expected = fisher_of(model, batch, labels="data", truth=labels).traces()
    assert found.provenance["fisher"]["kind"] == "empirical"
    assert {layer.name: layer.fisher for layer in found.layers} == pytest.approx(expected, rel=1e-5)


def test_models_without_gradients_say_why():
    model = adapters.read(fixture("vit_partly_int8"))
    found = lampq.profile(model, inputs_for(model, 2), bits=(8,))
    assert found.provenance["fisher"]["kind"] == "forward"
    assert found.provenance["fisher"]["note"].startswith("no gradients (")


def test_traces_change_with_the_seed_alone():
    model = adapters.read(fixture("conv_any_batch"))
    batch = inputs_for(model, 3)
    runs = [
        measure_traces(model, measure_reference(model, batch), Draws(seed=seed)).weight for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_requests_that_make_no_sense_are_refused():
    model, batch = read_named("packed")
    with pytest.raises(RecordError, match="'none' is none of true, empirical, forward"):
        measure_traces(model, measure_reference(model, batch), kind="none")
    with pytest.raises(RecordError, match="needs labelled data"):
        measure_traces(model, measure_reference(model, batch), kind="empirical")
