"""Measurements: checked at birth, built from choices by name, and what they leave out told in the profile."""

import dataclasses
import weakref

import numpy as np
import pytest
from numpy_model import NumpyModel

import lampq
from lampq.core.measuring.measure import measure_weight_error
from lampq.core.measuring.reference import measure_reference
from lampq.core.values.errors import AdapterError, LampqError, RecordError
from lampq.core.values.measurement import Measurement
from lampq.core.values.option import Option, all_options
from lampq.core.values.progress import quiet
from lampq.verbs.input_ranges import InputRanges, measure_joint


def test_widths_are_sorted_and_paired():
    measurement = Measurement.of(bits=[4, 2, 4], act_bits=8)
    assert (measurement.bits, measurement.act_bits) == ((2, 4), (8,))
    assert measurement.options == tuple(Option(weight_bits=bits, activation_bits=8) for bits in (2, 4))
    assert Measurement().options == tuple(Option(weight_bits=bits) for bits in range(2, 9))


def test_choices_change_what_is_given():
    base = Measurement(block=32, seed=3)
    assert Measurement.of(base, fisher_draws=0) == dataclasses.replace(base, fisher_draws=0)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"bits": ()}, "no widths to measure"),
        ({"bits": (0,)}, "0 weight bits"),
        ({"act_bits": (1, 8)}, "1 activation bits"),
        ({"act_range": "best"}, "activation range 'best' is none of minmax, percentile, mse, token"),
        ({"container": "zip"}, "container 'zip' is none of bitplane, int8"),
        ({"rounding": "up"}, "rounding 'up' is none of nearest, inputs"),
        ({"measure": "guess"}, "measure 'guess' is none of auto, gradients, differences"),
        ({"fisher": "false"}, "Fisher traces 'false' is none of true, empirical, forward"),
        ({"block": 3}, "block 3"),
        ({"tolerance": -0.1}, "tolerance -0.1"),
        ({"fisher_draws": -1}, "-1 draws"),
        ({"seed": -1}, "seed -1"),
        ({"act_bit": 8}, "'act_bit' is no choice of a measurement; there are act_bits, act_range, bits"),
    ],
)
def test_what_cannot_be_measured_is_refused(choices, message):
    with pytest.raises(RecordError, match=message):
        Measurement.of(**choices)


def test_unknown_choices_of_the_verbs_are_refused(tmp_path):
    model, images = NumpyModel.random(0), np.zeros((2, 8), np.float32)
    with pytest.raises(RecordError, match="'bit' is no choice of a measurement"):
        lampq.profile(model, images, bit=(2, 4))
    with pytest.raises(RecordError, match="'bit' is no choice of quantize") as caught:
        lampq.quantize(model, images, tmp_path / "q.onnx", bit=(2, 4), average_bits=3)
    assert {"average_bits,", "act_bits,", "rounds,"} <= set(str(caught.value).split())


class WithoutGradients(NumpyModel):
    """Rounds inputs, and says that its layout has no gradients of single samples."""

    def calibrate(self, *_, **__):
        raise AssertionError("tokens have ranges of their own")

    def joint_fisher(self, *_, **__):
        raise AdapterError("layer fc has its samples on no axis")


def test_a_joint_score_that_cannot_be_taken_is_told():
    model = WithoutGradients.random(0)
    ranges = InputRanges(grids={}, table=None, method="token")
    joint = measure_joint(
        model,
        model.layers(),
        measure_reference(model, np.ones((2, 8), np.float32)),
        Measurement(bits=(2, 4), act_bits=(4,)),
        ranges,
        samples=None,
        progress=quiet,
    )
    assert joint.table is None
    assert joint.note == "layer fc has its samples on no axis"


def test_records_refuse_with_errors_of_the_package():
    with pytest.raises(LampqError):
        Measurement(act_range="")


def test_one_weight_is_held_at_a_time():
    class Counting(NumpyModel):
        def weight(self, name):
            assert not any(ref() is not None for ref in handed_out), (
                f"another weight is still held with {name}"
            )
            weight = super().weight(name).copy()
            handed_out.append(weakref.ref(weight))
            return weight

    handed_out = []
    model = Counting.random(0, depth=3)
    layers = model.layers()
    handed_out.clear()
    damage = measure_weight_error(model, layers, all_options((2, 4)))
    assert len(handed_out) == len(layers)
    assert (damage.weight_error > 0).all()
