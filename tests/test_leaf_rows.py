"""Rows of gradients of ONNX and TFLite models, whose graphs are run in PyTorch, against quantizing layers."""

import numpy as np
import pytest
from onnx_models import exported, mlp, normal, saved
from tflite_models import fixture, inputs_for

from lampq.adapters import onnx, tflite
from lampq.core.measuring.candidates import Candidates
from lampq.core.measuring.gradient_rows import Loader, rows_by_runs, rows_of
from lampq.core.measuring.reference import measure_reference
from lampq.core.readouts.draws import Draws
from lampq.core.values.errors import NoGradientsError
from lampq.core.values.option import all_options


def onnx_model():
    return onnx.read(exported("conv", "dynamo")), normal(4, 3, 16, 16, seed=2)


def padded_onnx_model():
    """Batches of two, the last filled up."""
    return onnx.read(exported("conv", "dynamo", batch=2)), normal(3, 3, 16, 16, seed=2)


def tflite_model():
    model = tflite.read(fixture("post_norm"))
    return model, inputs_for(model, 3)


def candidates_of(model, bits, rules=None):
    layers, options = model.layers(), all_options(bits)
    available = np.array(
        [[model.payload_bytes(layer, b, "bitplane") is not None for b in bits] for layer in layers]
    )
    return Candidates(model=model, layers=layers, options=options, available=available, rules=rules)


@pytest.mark.parametrize("made", [onnx_model, padded_onnx_model, tflite_model])
def test_rows_are_what_quantizing_a_layer_does_along_each_direction(made):
    model, batch = made()
    reference = measure_reference(model, batch)
    candidates = candidates_of(model, (8,))
    directions = Draws(labels="principal", count=3, seed=1)
    found = rows_of(candidates, reference, directions, Loader(candidates, candidates.every()))
    vectors = list(reference.readout.directions(reference.outputs, directions))
    for (layer, column), expected in rows_by_runs(candidates, reference, vectors, candidates.every()).items():
        size = np.sqrt(np.mean(expected**2))
        if size > 1e-4:
            assert np.sqrt(np.mean((found[:, :, layer, column] - expected) ** 2)) < 0.1 * size


def test_rounded_inputs_are_refused_where_there_are_no_gradients_of_them(tmp_path):
    model, batch = onnx.read(saved(mlp(), tmp_path)), normal(4, 16)
    reference = measure_reference(model, batch)
    blocks = model.gradient_rows(
        reference.inputs,
        {layer.name: ([model.weight(layer.name)], ["a rule"]) for layer in model.layers()},
        reference.readout,
        Draws(samples=np.arange(4)),
    )
    with pytest.raises(NoGradientsError, match="inputs that are rounded"):
        list(blocks)
