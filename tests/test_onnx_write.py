"""Quantized ONNX files against independent runtimes: onnx's reference evaluator and ONNX Runtime."""

import hashlib
import json

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_graphs import Graph, batch_for, make_plan, network, optimized_ops, rounded, run, transformer

from lampq.adapters.onnx import rewrite, save, verify
from lampq.adapters.onnx import write as writer
from lampq.adapters.onnx.bits import read_bits
from lampq.adapters.onnx.decisions import Decisions
from lampq.adapters.onnx.emit import Emitter
from lampq.adapters.onnx.reader import read
from lampq.adapters.onnx.unpack import Unpacker
from lampq.adapters.onnx.write import write
from lampq.core.quantizing.quantizer import as_rows, from_rows, quantize
from lampq.core.values.errors import AdapterError, LampqError, PlanError
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
@pytest.mark.parametrize("shape", [(16, 24), (5, 7, 3)])
def test_unpacking_nodes_give_the_integers_of_every_width_and_grid(opset, shape):
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n"]))
    last = ir.node("Identity", [value])
    last.outputs[0].name = "y"
    graph = ir.Graph([value], [last.outputs[0]], nodes=[last], opset_imports={"": opset}, name="g")
    model = ir.Model(graph, ir_version=8)
    emitter = Emitter(model)
    unpacker = Unpacker(emitter)
    expected = []
    for bits in range(1, 9):
        for step, offset in ((2, 2**bits - 1), (1, 2 ** (bits - 1)))[bits == 8 :]:
            codes = np.random.default_rng(bits).integers(0, 1 << bits, shape).astype(np.uint8)
            integers = unpacker.add(
                f"w{bits}", lambda codes=codes: codes, shape, bits=bits, step=step, offset=offset
            )
            output = emitter.before(last, "Cast", [integers], to=ir.DataType.INT32)
            expected.append(step * codes.astype(np.int32) - offset)
            graph.outputs.append(output)
    emitter.finish()
    for output in graph.outputs:
        output.type, output.shape = ir.TensorType(ir.DataType.INT32), ir.Shape([None] * len(shape))
    last.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    last.outputs[0].shape = ir.Shape(["n"])
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    feed = {"x": np.zeros(1, np.float32)}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for runtime in (session, ReferenceEvaluator(proto)):
        for found, wanted in zip(runtime.run(None, feed)[1:], expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("container", ["bitplane", "int8"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_weights_alone_are_exactly_the_rounded_ones(tmp_path, bits, container):
    model = read(transformer(tmp_path / "float.onnx", opset=17))
    written = write(model, make_plan(model, bits, container=container), tmp_path / "q.onnx")
    batch = batch_for(3, 6, 16)
    expected = model.with_weights(rounded(model, bits)).run(batch)
    np.testing.assert_allclose(run(written.path, batch), expected, rtol=1e-5, atol=1e-6)
    reference = ReferenceEvaluator(str(written.path)).run(None, {"x": batch})[0]
    np.testing.assert_allclose(reference, expected, rtol=1e-5, atol=1e-6)
    assert written.relative_error < 1e-6
    assert written.integer_layers == ()
    stored = "int8" if container == "int8" or bits == 8 else "bitplane"
    assert read_bits(written.path) == {layer.name: (bits, stored) for layer in model.layers()}


@pytest.mark.parametrize("batch_axis", ["n", 2])
def test_weights_alone_leave_float_kernels_and_no_trace_of_unpacking(tmp_path, batch_axis):
    model = read(transformer(tmp_path / "float.onnx", batch=batch_axis, opset=17))
    plain = optimized_ops(model.path, tmp_path)
    written = write(model, make_plan(model, 3), tmp_path / "q.onnx")
    assert optimized_ops(written.path, tmp_path) == plain


def test_other_optimization_levels_and_thread_counts_change_nothing(tmp_path):
    model = read(transformer(tmp_path / "float.onnx"))
    written = write(model, make_plan(model, 5), tmp_path / "q.onnx")
    batch = batch_for(2, 6, 16)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(written.path), options, providers=["CPUExecutionProvider"])
    plain = session.run(None, {"x": batch})[0]
    np.testing.assert_allclose(run(written.path, batch), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", range(1, 9))
def test_grouped_convolutions_alone_are_exact(tmp_path, bits):
    model = read(network(tmp_path / "float.onnx", opset=13))
    written = write(model, make_plan(model, bits), tmp_path / "q.onnx")
    batch = batch_for(2, 3, 8, 8)
    expected = model.with_weights(rounded(model, bits)).run(batch)
    np.testing.assert_allclose(run(written.path, batch), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13])
@pytest.mark.parametrize("activations", [None, 8])
def test_old_operator_sets_are_raised_only_as_far_as_needed(tmp_path, opset, activations):
    g = Graph()
    hidden = g.node("Unsqueeze", ["x"], axes=[1])
    hidden = g.node("Add", [g.node("MatMul", [hidden, g.weight("a.weight", 16, 24)]), g.weight("a.bias", 24)])
    hidden = g.node("Squeeze", [g.node("Softmax", [hidden], axis=2)], axes=[1])
    hidden = g.node("Dropout", [hidden])
    g.node("Gemm", [hidden, g.weight("b.weight", 10, 24), g.weight("b.bias", 10)], transB=1)
    if opset == 13:
        axes = g.tensor("axes", [1], np.int64)
        for node in g.nodes:
            if node.op_type in ("Squeeze", "Unsqueeze"):
                del node.attribute[:]
                node.input.append(axes)
    model = read(g.save(tmp_path / "float.onnx", ["n", 16], opset=opset, ir_version=4))
    written = write(model, make_plan(model, {"a": 3, "b": 6}, activations), tmp_path / "q.onnx")
    stored = {d.domain: d.version for d in onnx.load(written.path).opset_import}
    assert stored == {"": max(opset, 13 if activations else 11), "com.microsoft": 1}
    batch = batch_for(3, 16)
    expected = model.with_weights({"a": rounded(model, 3)["a"], "b": rounded(model, 6)["b"]}).run(batch)
    np.testing.assert_allclose(run(written.path, batch), expected, atol=0.05 if activations else 1e-6)


def test_what_is_not_a_weight_stays_as_it_was(tmp_path):
    model = read(transformer(tmp_path / "float.onnx", opset=17))
    first = model.layers()[0].name
    written = write(model, make_plan(model, {first: 3}), tmp_path / "q.onnx")
    before, after = onnx.load(model.path), onnx.load(written.path)
    properties = {p.key: p.value for p in after.metadata_props}
    assert json.loads(properties.pop("lampq.plan")) == {"container": "bitplane", "layers": {first: "w3"}}
    assert properties == {"author": "somebody"}
    assert (after.producer_name, after.ir_version) == ("test", 8)
    assert after.opset_import == before.opset_import
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    kept = {i.name: i for i in after.graph.initializer}
    for tensor in before.graph.initializer:
        if tensor.name != f"{first}.weight":
            assert kept[tensor.name] == tensor
    assert f"{first}.weight" not in kept
    nodes = {node.name: node for node in after.graph.node}
    for node in before.graph.node[1:]:
        assert nodes[node.name] == node
    onnx.checker.check_model(after, full_check=True)


def test_names_that_are_taken_are_not_taken_again(tmp_path):
    g = Graph()
    g.node("Identity", ["x"], "aaa")
    g.node("Add", ["aaa", g.tensor("fc.scale", np.zeros(16))], "aab")
    g.node("Add", ["aab", g.tensor("fc.2b1", np.zeros(16))], "aad")
    g.node("Gemm", ["aad", g.weight("fc.weight", 16, 10)])
    model = read(g.save(tmp_path / "float.onnx", ["n", 16]))
    written = write(model, make_plan(model, 3, 8), tmp_path / "q.onnx")
    names = [o for n in onnx.load(written.path).graph.node for o in n.output]
    names += [i.name for i in onnx.load(written.path).graph.initializer]
    assert len(set(names)) == len(names)
    assert read_bits(written.path) == {"fc": (3, "bitplane")}


def test_large_models_get_a_data_file(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "_EXTERNAL_FROM", 100)
    model = read(transformer(tmp_path / "float.onnx"))
    plan = make_plan(model, 4)
    graph = writer.build(
        model,
        Decisions.from_plan(plan),
        lambda site, bits: quantize(as_rows(model.weight(site.name), site.channel_axis), bits),
    ).graph
    folder = tmp_path / "out"
    folder.mkdir()
    with save.staged(graph, folder / "q.onnx", single_file_bytes=100):
        assert len(list(folder.iterdir())) == 1
    model_file, data_file = sorted(folder.iterdir())
    digest = hashlib.sha256(data_file.read_bytes()).hexdigest()
    assert (model_file.name, data_file.name) == ("q.onnx", f"q.onnx.{digest[:12]}.data")
    batch = batch_for(2, 6, 16)
    whole = write(model, plan, tmp_path / "q.onnx")
    np.testing.assert_array_equal(run(folder / "q.onnx", batch), run(whole.path, batch))
    with save.staged(graph, folder / "q.onnx"):
        pass
    assert [p.name for p in folder.iterdir()] == ["q.onnx"]
    np.testing.assert_array_equal(run(folder / "q.onnx", batch), run(whole.path, batch))


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    g = Graph()
    g.node("Gemm", ["x", g.weight("fc.weight", 16, 10)])
    model = read(g.save(tmp_path / "float.onnx", ["n", 16]))
    target = tmp_path / "q.onnx"
    target.write_bytes(b"what was there")
    monkeypatch.setattr(rewrite, "from_rows", lambda rows, *where: from_rows(rows ^ 1, *where))
    with pytest.raises(AdapterError, match="does not compute what it should"):
        write(model, make_plan(model, 4), target)
    assert target.read_bytes() == b"what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["float.onnx", "q.onnx"]


def test_outputs_that_the_float_model_makes_infinite_do_not_stop_writing(tmp_path):
    """Logits that overflow float32 with the noise that the file is checked with."""
    g = Graph()
    hidden = g.node("Gemm", ["x", g.weight("fc.weight", 16, 10)])
    g.node("Exp", [g.node("Mul", [hidden, g.tensor("much", 1e3)])])
    model = read(g.save(tmp_path / "float.onnx", ["n", 16]))
    write(model, make_plan(model, 4), tmp_path / "q.onnx")
    small = batch_for(2, 16) * 1e-4
    assert np.isfinite(run(tmp_path / "q.onnx", small)).all()


def test_wrong_codes_are_noticed(tmp_path):
    model = read(transformer(tmp_path / "float.onnx"))
    for activations in (None, 8):
        decisions = Decisions.from_plan(make_plan(model, 4, activations))
        kept = {}

        def quantized(site, bits, kept=kept):
            kept[site.name] = quantize(as_rows(model.weight(site.name), site.channel_axis), bits)
            return kept[site.name]

        graph = writer.build(model, decisions, quantized).graph
        with save.staged(graph, tmp_path / "q.onnx") as staged:
            assert verify.check(model.variant, staged, decisions, kept, None) < 1e-2
            kept["head"].scale[0] *= 3
            with pytest.raises(AdapterError, match="does not compute"):
                verify.check(model.variant, staged, decisions, kept, None)


def test_bad_requests_are_refused_before_anything_is_written(tmp_path):
    model = read(transformer(tmp_path / "float.onnx"))
    plan = make_plan(model, 4)
    target = tmp_path / "q.onnx"
    stranger = Plan(
        layers=(
            plan.layers[0],
            PlanLayer(**{f: getattr(plan.layers[1], f) for f in PlanLayer.__slots__} | {"name": "no"}),
        ),
        mode="uniform",
        budget={},
        container="bitplane",
        rest_bytes=0,
    )
    with pytest.raises(PlanError, match="no layer 'no'"):
        write(model, stranger, target)
    layers = tuple(
        PlanLayer(**{f: getattr(p, f) for f in PlanLayer.__slots__} | {"activation_bits": 8})
        for p in plan.layers
    )
    with pytest.raises(PlanError, match="holds no range"):
        write(
            model, Plan(layers=layers, mode="uniform", budget={}, container="bitplane", rest_bytes=0), target
        )
    with pytest.raises(LampqError, match="does not exist"):
        write(model, plan, tmp_path / "nowhere" / "q.onnx")
    assert not target.exists()
    target.write_bytes(b"mine")
    with pytest.raises(LampqError, match="pass --force"):
        write(model, plan, target, force=False)
    assert target.read_bytes() == b"mine"


def test_replaced_weights_are_written(tmp_path):
    model = read(transformer(tmp_path / "float.onnx"))
    zeros = {"head": np.zeros((10, 16), np.float32), "mlp.fc1": np.zeros((16, 40), np.float32)}
    changed = model.with_weights(zeros)
    written = write(changed, make_plan(model, {"head": 4}), tmp_path / "q.onnx")
    batch = batch_for(2, 6, 16)
    np.testing.assert_allclose(run(written.path, batch), changed.run(batch), atol=1e-6)


def test_bits_are_read_without_the_note_of_the_plan(tmp_path):
    model = read(transformer(tmp_path / "float.onnx"))
    for container in ("bitplane", "int8"):
        written = write(model, make_plan(model, 4, container=container), tmp_path / "q.onnx")
        proto = onnx.load(written.path)
        del proto.metadata_props[:]
        onnx.save(proto, tmp_path / "bare.onnx")
        assert read_bits(tmp_path / "bare.onnx") == {layer.name: (4, container) for layer in model.layers()}
    assert read_bits(model.path) == {}
