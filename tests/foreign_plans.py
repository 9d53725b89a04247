"""Plans of given widths, and which tools name layers and which the nodes of a graph; models and a profile as fixtures
that tests import.
"""

import pytest
from onnx_models import mlp, saved
from records import make_profile
from tflite_models import fixture

from lampq import adapters
from lampq.conversions import imports
from lampq.conversions.target import Target

OF_NAMES = ("json", "csv", "torchao", "compressed-tensors", "quanto", "modelopt", "aimet")
OF_NODES = ("ort-nbits", "ort-qdq", "nncf", "aimet")


def given_plan(target, widths):
    named = {
        layer.name: width for layer, width in zip(target.layers, widths, strict=True) if width is not None
    }
    return imports.given_plan(named, target, notes=())


def facts(plan):
    return [(layer.name, layer.weight_bits, layer.activation_bits) for layer in plan.layers]


def mixed_plan(source, widths, activations=(None,)):
    target = Target.of(source)
    count = len(target.layers)
    return given_plan(
        target, [(widths[i % len(widths)], activations[i % len(activations)]) for i in range(count)]
    )


@pytest.fixture(scope="module")
def profile():
    return make_profile(0)


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory):
    return adapters.read(saved(mlp(5), tmp_path_factory.mktemp("onnx")))


@pytest.fixture(scope="module")
def tflite_model():
    return adapters.read(fixture("vit"))
