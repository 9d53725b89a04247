"""Models with several inputs and outputs, and outputs behind operators that choose, against NumPy."""

import numpy as np
import pytest
from tflite_models import Builder, fixture, inputs_for, narrowest, plan_for, relative

from lampq.adapters.tflite import noise, read
from lampq.core.measuring.measure import measure_damage
from lampq.core.measuring.reference import measure_reference
from lampq.core.readouts.draws import Draws
from lampq.core.values.batch import Batch
from lampq.core.values.errors import AdapterError
from lampq.core.values.head import HeadChoice
from lampq.core.values.option import all_options

pytestmark = pytest.mark.usefixtures("weights_of_any_size")

RNG = np.random.default_rng(5)
TABLE, FIRST, SECOND = (RNG.normal(size=shape).astype(np.float32) for shape in ((50, 8), (6, 8), (3, 8)))


def ints(*values):
    return np.array(values, np.int32)


def encoder(path, *, length=4):
    """ids and mask (1, length) to classes and a vector: looked up, averaged under the mask, two linear layers."""
    b = Builder()
    ids = b.tensor("ids", (1, length), kind="INT32", signature=(1, -1))
    mask = b.tensor("mask", (1, length), signature=(1, -1))
    looked, rows = b.tensor("looked", (1, length, 8)), b.tensor("rows", (1, 8, length))
    table = b.tensor("net/embed", TABLE.shape, TABLE)
    b.op("GATHER", [table, ids], [looked], "GatherOptions")
    order = b.tensor("order", (3,), ints(0, 2, 1), kind="INT32")
    b.op("TRANSPOSE", [looked, order], [rows], "TransposeOptions")
    masked, total = b.tensor("masked", (1, 8, length)), b.tensor("total", (1, 8))
    b.op("MUL", [rows, mask], [masked], "MulOptions")
    axis = b.tensor("axis", (1,), ints(2), kind="INT32")
    b.op("SUM", [masked, axis], [total], "ReducerOptions")
    logits, classes, vector = b.tensor("logits", (1, 6)), b.tensor("classes", (1, 6)), b.tensor("box", (1, 3))
    w, v = b.tensor("net/fc1/MatMul", FIRST.shape, FIRST), b.tensor("net/fc2/MatMul", SECOND.shape, SECOND)
    b.op("FULLY_CONNECTED", [total, w, -1], [logits], "FullyConnectedOptions", version=6)
    b.op("SOFTMAX", [logits], [classes], "SoftmaxOptions", beta=1.0)
    b.op("FULLY_CONNECTED", [total, v, -1], [vector], "FullyConnectedOptions", version=6)
    return b.write(path, [ids, mask], [classes, vector])


def encoded(ids, mask, *, table=TABLE, first=FIRST, second=SECOND):
    """The same by NumPy, with logits in place of classes up to a constant per sample."""
    total = (table[ids] * mask[:, :, None]).sum(axis=1)
    logits = total @ first.T
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), total @ second.T


def texts(samples, length, seed=0):
    rng = np.random.default_rng((seed, length))
    return {
        "ids": rng.integers(0, 50, (samples, length)).astype(np.int32),
        "mask": rng.integers(0, 2, (samples, length)).astype(np.float32),
    }


def test_inputs_and_outputs_have_names_and_outputs_roles(tmp_path):
    model = read(encoder(tmp_path / "m.tflite"))
    assert [str(spec) for spec in model.input_specs] == ["ids int32[1x?]", "mask float32[1x?]"]
    assert [str(spec) for spec in model.output_specs] == ["classes float32[1x6]", "box float32[1x3]"]
    assert [spec.producer for spec in model.output_specs] == ["Softmax", "Gemm"]
    assert [(head.name, head.role, head.activated) for head in model.heads] == [
        ("classes", "classes", True),
        ("box", "values", False),
    ]


def test_samples_of_several_lengths_are_run_group_by_group(tmp_path):
    model = read(encoder(tmp_path / "m.tflite"))
    groups = [texts(3, 4), texts(2, 7)]
    outputs = model.run(Batch(groups))
    assert outputs.sizes == (3, 2)
    for group, found in zip(groups, outputs.groups, strict=True):
        classes, box = encoded(**group)
        np.testing.assert_allclose(found["classes"], classes, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found["box"], box, rtol=1e-4, atol=1e-5)


def test_a_sweep_starts_from_all_inputs(tmp_path):
    model = read(encoder(tmp_path / "m.tflite"))
    batch = Batch([texts(2, 4), texts(2, 5)])
    changed = {"net.embed": TABLE[::-1].copy(), "net.fc1": 2 * FIRST, "net.fc2": -SECOND}
    keys = {"net.embed": "table", "net.fc1": "first", "net.fc2": "second"}
    for name, _, outputs in model.sweep(batch, [(name, 0, changed[name]) for name in (*keys, "net.embed")]):
        for group, found in zip(batch.groups, outputs.groups, strict=True):
            classes, box = encoded(**group, **{keys[name]: changed[name]})
            np.testing.assert_allclose(found["classes"], classes, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(found["box"], box, rtol=1e-4, atol=1e-4)


def test_names_that_are_missing_or_unknown_are_one_line(tmp_path):
    model = read(encoder(tmp_path / "m.tflite"))
    good = texts(2, 4)
    for batch, why in (
        ({"ids": good["ids"]}, "; the batch lacks mask"),
        ({**good, "x": good["mask"]}, "; the batch also has x"),
        (good["ids"], ": give arrays by name"),
    ):
        with pytest.raises(AdapterError, match=r"takes ids int32\[1x\?\], mask float32\[1x\?\]" + why) as err:
            model.run(batch)
        assert "\n" not in str(err.value)
    with pytest.raises(AdapterError, match=r"takes ids int32\[1x\?\], not float32; convert the data"):
        model.run({**good, "ids": good["mask"]})
    with pytest.raises(AdapterError, match="the batch holds numbers beyond that"):
        model.run({**good, "ids": good["ids"].astype(np.int64) + 2**32})
    assert model.run({**good, "ids": good["ids"].astype(np.int64)}).samples == 2


def test_damage_and_gradients_of_two_outputs_agree(tmp_path):
    """Small steps: damage is half the squared length of the Fisher direction, summed over both heads."""
    model = read(encoder(tmp_path / "m.tflite"))
    batch = Batch.of(texts(12, 4))
    reference = measure_reference(model, batch)
    traces = model.fisher(reference.inputs, reference.readout, Draws(count=40)).weight
    for name in ("net.fc1", "net.fc2", "net.embed"):
        weight, total, rng, step = model.weight(name), 0.0, np.random.default_rng(1), 1e-2
        for _ in range(16):
            moved = weight + step * rng.choice([-1, 1], size=weight.shape).astype(np.float32)
            ((_, _, outputs),) = model.sweep(batch, [(name, 0, moved)])
            total += 2 * reference.damage(outputs) / step**2 / 16
        assert traces[name] == pytest.approx(total, rel=0.3)


def test_a_mixed_file_with_two_inputs_computes_what_its_codes_say(tmp_path):
    model = read(encoder(tmp_path / "m.tflite"))
    out, widths = tmp_path / "q.tflite", {"net.embed": 2, "net.fc1": 4, "net.fc2": 8}
    plan = plan_for(model, lambda layer: widths[layer.name])
    model.write(plan, out)
    assert out.stat().st_size == plan.total_bytes
    written = read(out)
    assert {name: bits for name, (bits, _) in written.stored_bits().items()} == widths
    again = read(out, requantize=True)
    values = {
        key: again.weight(name)
        for name, key in (("net.embed", "table"), ("net.fc1", "first"), ("net.fc2", "second"))
    }
    batch = texts(5, 6)
    outputs = written.run(batch)
    for found, expected in zip((outputs["classes"], outputs["box"]), encoded(**batch, **values), strict=True):
        assert relative(found, expected) < 0.02


def test_rounded_values_of_a_file_are_layers_where_that_is_asked_for(tmp_path):
    model, out = read(fixture("mobile_vit")), tmp_path / "q.tflite"
    model.write(plan_for(model, narrowest(model, 4)), out)
    assert read(out).layers() == ()
    again = read(out, requantize=True)
    assert [layer.name for layer in again.layers()] == [layer.name for layer in model.layers()]
    batch = inputs_for(model, 3)
    zero = {layer.name: again.weight(layer.name) for layer in again.layers()}
    assert relative(np.asarray(again.with_weights(zero).run(batch)), np.asarray(again.run(batch))) < 0.02
    once_more = tmp_path / "again.tflite"
    plan = plan_for(again, lambda _: 8)
    again.write(plan, once_more)
    assert once_more.stat().st_size == plan.total_bytes
    assert relative(np.asarray(read(once_more).run(batch)), np.asarray(again.run(batch))) < 0.02


def chooser(path, choice):
    """A linear layer whose scores are chosen from, beside another output of its own."""
    b = Builder()
    x, y, z = b.tensor("x", (1, 8)), b.tensor("scores", (1, 6)), b.tensor("box", (1, 3))
    w, v = b.tensor("net/fc1/MatMul", FIRST.shape, FIRST), b.tensor("net/fc2/MatMul", SECOND.shape, SECOND)
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    b.op("FULLY_CONNECTED", [x, v, -1], [z], "FullyConnectedOptions", version=6)
    return b.write(path, [x], [*choice(b, y), z])


def largest(b, scores):
    axis, result = b.tensor("axis", (1,), ints(1), kind="INT32"), b.tensor("label", (1,), kind="INT32")
    b.op("ARG_MAX", [scores, axis], [result], "ArgMaxOptions", outputType=2)
    return [result]


def few(b, scores):
    k = b.tensor("k", (), ints(2).reshape(()), kind="INT32")
    results = [b.tensor("best", (1, 2)), b.tensor("places", (1, 2), kind="INT32")]
    b.op("TOPK_V2", [scores, k], results, "TopKV2Options")
    return results


def rounded(b, scores):
    steps, result = b.tensor("steps", (1, 6)), b.tensor("twice", (1, 6))
    b.op("ROUND", [scores], [steps])
    b.op("ADD", [steps, steps], [result], "AddOptions")
    return [result]


def counted(b, scores):
    half, flag, result = (
        b.tensor("half", (), np.float32(0.5)),
        b.tensor("flag", (1, 6), kind="BOOL"),
        b.tensor("n", (1, 6)),
    )
    b.op("GREATER", [scores, half], [flag], "GreaterOptions")
    b.op("CAST", [flag], [result], "CastOptions")
    return [result]


def detected(b, scores):
    results = [b.tensor("boxes", (1, 4, 4)), b.tensor("number", (1,))]
    b.op("CUSTOM", [scores], results, custom="TFLite_Detection_PostProcess")
    return results


@pytest.mark.parametrize("choice", [largest, few, rounded, counted, detected])
def test_outputs_behind_operators_that_choose_are_judged_in_front_of_them(choice, tmp_path):
    model = read(chooser(tmp_path / "m.tflite", choice))
    *chosen, box, scores = model.output_specs
    assert (scores.name, scores.stands_for) == ("scores", tuple(spec.name for spec in chosen))
    assert [head.role for head in model.heads[: len(chosen)]] == ["ignore"] * len(chosen)
    assert all(head.reason for head in model.heads)
    batch = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    outputs = model.run(batch)
    assert outputs.names == (box.name, "scores")
    np.testing.assert_allclose(outputs["scores"], batch @ FIRST.T, rtol=1e-5, atol=1e-5)
    damage = measure_damage(model, model.layers(), all_options((2, 8)), batch)
    assert (damage.kl[:, 0] > damage.kl[:, 1]).all()
    out = tmp_path / "q.tflite"
    model.write(plan_for(model, lambda _: 8), out)
    assert relative(read(out).run(batch)["scores"], batch @ FIRST.T) < 0.02


def test_a_guard_against_division_by_zero_is_no_choice(tmp_path):
    """Where two numbers are compared to select one of them, both mostly meet: the output stays an output."""

    def guarded(b, scores):
        zero, flag, result = (
            b.tensor("zero", (), np.float32(0)),
            b.tensor("flag", (1, 6), kind="BOOL"),
            b.tensor("y", (1, 6)),
        )
        b.op("EQUAL", [scores, zero], [flag], "EqualOptions")
        b.op("SELECT_V2", [flag, zero, scores], [result], "SelectV2Options")
        return [result]

    model = read(chooser(tmp_path / "m.tflite", guarded))
    assert [spec.name for spec in model.output_specs] == ["y", "box"]
    assert all(head.judged for head in model.heads)


def test_any_inner_tensor_may_be_judged_and_any_output_left_out(tmp_path):
    model = read(encoder(tmp_path / "m.tflite"))
    chosen = model.with_heads(
        [
            HeadChoice(name="classes", role="ignore"),
            HeadChoice(name="total", role="direction", weight=2.0),
            HeadChoice(name="box", role="values", weight=0.5),
        ]
    )
    assert [(head.name, head.role, head.weight) for head in chosen.heads] == [
        ("classes", "ignore", 1.0),
        ("box", "values", 0.5),
        ("total", "direction", 2.0),
    ]
    batch = texts(3, 4)
    outputs = chosen.run(batch)
    assert outputs.names == ("box", "total")
    np.testing.assert_allclose(
        outputs["total"], (TABLE[batch["ids"]] * batch["mask"][:, :, None]).sum(axis=1), rtol=1e-5
    )
    assert model.run(batch).names == ("classes", "box")
    with pytest.raises(AdapterError, match="'nothing'; the outputs are classes, box"):
        model.with_heads([HeadChoice(name="nothing", role="values")])
    with pytest.raises(AdapterError, match="no output to judge"):
        model.with_heads([HeadChoice(name=n, role="ignore") for n in ("classes", "box")]).run(batch)


def test_an_output_without_an_axis_of_samples_becomes_one_per_run(tmp_path):
    b = Builder()
    x, y, z = b.tensor("x", (1, 8)), b.tensor("y", (1, 6)), b.tensor("z", (6,))
    b.op(
        "FULLY_CONNECTED", [x, b.tensor("w", FIRST.shape, FIRST), -1], [y], "FullyConnectedOptions", version=6
    )
    b.op("RESHAPE", [y, b.tensor("six", (1,), ints(6), kind="INT32")], [z], "ReshapeOptions")
    model = read(b.write(tmp_path / "m.tflite", [x], [z]))
    assert model.output_specs[0].shape == (1, 6)
    batch = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(model.run(batch)), batch @ FIRST.T, rtol=1e-5, atol=1e-5)


def test_a_scalar_beside_an_image_is_one_number_per_sample(tmp_path):
    b = Builder()
    x, factor, y, z = (
        b.tensor("x", (1, 8)),
        b.tensor("factor", ()),
        b.tensor("y", (1, 6)),
        b.tensor("z", (1, 6)),
    )
    b.op(
        "FULLY_CONNECTED", [x, b.tensor("w", FIRST.shape, FIRST), -1], [y], "FullyConnectedOptions", version=6
    )
    b.op("MUL", [y, factor], [z], "MulOptions")
    model = read(b.write(tmp_path / "m.tflite", [x, factor], [z]))
    assert [spec.shape for spec in model.input_specs] == [(1, 8), (1,)]
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(4, 8)).astype(np.float32), "factor": rng.normal(size=4).astype(np.float32)}
    expected = batch["x"] @ FIRST.T * batch["factor"][:, None]
    np.testing.assert_allclose(np.asarray(model.run(batch)), expected, rtol=1e-5, atol=1e-5)


def test_noise_stays_below_the_rows_of_a_table(tmp_path):
    model = read(encoder(tmp_path / "m.tflite"))
    opened = model.variant.opened
    assert noise.rows(opened.main, opened.interface.inputs[0].tensor) == 50
    sample = noise.trial(opened.interface, opened.main, 40)
    assert 20 < sample["ids"].max() < 50
    assert sample["ids"].shape == (40, 4)


def test_what_no_judged_output_depends_on_keeps_eight_bits(tmp_path):
    """Its damage cannot be measured: a plan would take zero for it."""
    model = read(chooser(tmp_path / "m.tflite", largest)).with_heads(
        [HeadChoice(name="scores", role="ignore")]
    )
    layers = {layer.name: layer for layer in model.layers()}
    possible = {
        n: [b for b in (2, 4, 8) if model.payload_bytes(layer, b, "bitplane")] for n, layer in layers.items()
    }
    assert possible == {"net.fc1": [8], "net.fc2": [2, 4, 8]}
