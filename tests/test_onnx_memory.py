"""ONNX files larger than memory should have to hold: written in a stream, checked piece by piece."""

import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from onnx_graphs import Graph, batch_for, make_plan, network, run, transformer
from onnx_models import if_model, normal, saved
from onnx_runs import noise

from lampq.adapters.onnx import pieces, save, shelf, stream, trials
from lampq.adapters.onnx.container import Container
from lampq.adapters.onnx.reader import read
from lampq.adapters.onnx.unpack import PLANE_NAME
from lampq.adapters.onnx.write import write
from lampq.core.quantizing.quantizer import quantize
from lampq.core.values.errors import AdapterError


def in_pieces(model, path, batch, piece_bytes=1):
    outputs = pieces.run(
        Container(path).parse(),
        model.variant.opened.runtime,
        ["logits"],
        {"x": batch},
        piece_bytes=piece_bytes,
    )
    return outputs["logits"]


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("activations", [None, 8])
def test_a_file_run_in_pieces_computes_what_it_computes_whole(tmp_path, activations, dtype):
    model = read(transformer(tmp_path / "float.onnx", dtype=dtype))
    written = write(model, make_plan(model, 5, activations), tmp_path / "q.onnx")
    batch = batch_for(3, 6, 16).astype(np.float16 if dtype == TensorProto.FLOAT16 else np.float32)
    whole = run(written.path, batch)
    tolerance = 1e-2 if dtype == TensorProto.FLOAT16 or activations else 1e-5
    for piece_bytes in (1, 3000, 1 << 30):
        found = in_pieces(model, written.path, batch, piece_bytes)
        np.testing.assert_allclose(found, whole, rtol=0, atol=tolerance * np.abs(whole).max())


def test_convolutions_and_branches_run_in_pieces(tmp_path):
    model = read(network(tmp_path / "net.onnx"))
    batch = noise(model)
    np.testing.assert_allclose(
        in_pieces(model, model.path, batch), run(model.path, batch), rtol=1e-5, atol=1e-6
    )
    path = saved(if_model(), tmp_path)
    branching = read(path)
    batch = noise(branching)
    (name,) = [head.name for head in branching.heads]
    found = pieces.run(
        Container(path).parse(), branching.variant.opened.runtime, [name], {"x": batch}, piece_bytes=1
    )[name]
    np.testing.assert_allclose(found, branching.run(batch), rtol=1e-5, atol=1e-6)


def test_a_piece_has_as_many_layers_as_fit(tmp_path, monkeypatch):
    g, value = Graph(), "x"
    for index in range(6):
        value = g.node("Relu", [g.node("MatMul", [value, g.weight(f"w{index}", 64, 64)])])
    model = read(g.save(tmp_path / "float.onnx", ["n", 64]))
    runtime, held = type(model.variant.opened.runtime), []

    def open_part(self, part, *, original=runtime.open_part, **options):
        held.append(sorted(part.constants))
        return original(self, part, **options)

    monkeypatch.setattr(runtime, "open_part", open_part)
    in_pieces(model, model.path, batch_for(2, 64), piece_bytes=2 * 4 * 64 * 64)
    assert held == [["w0", "w1"], ["w2", "w3"], ["w4", "w5"]]


@pytest.mark.parametrize("activations", [None, 8])
def test_large_files_are_checked_as_small_ones_are(tmp_path, monkeypatch, activations):
    model = read(transformer(tmp_path / "float.onnx"))
    plan = make_plan(model, 4, activations)
    small = write(model, plan, tmp_path / "small.onnx")
    monkeypatch.setattr(trials, "WHOLE_BYTES", 0)
    monkeypatch.setattr(shelf, "_MEMORY_BYTES", 1)
    large = write(model, plan, tmp_path / "large.onnx")
    assert large.path.read_bytes() == small.path.read_bytes()
    assert abs(large.relative_error - small.relative_error) < 1e-2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["float.onnx", "large.onnx", "small.onnx"]


def test_wrong_codes_of_a_large_file_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "WHOLE_BYTES", 0)
    model = read(transformer(tmp_path / "float.onnx"))
    staged = save.staged

    def damaged(graph, path, **options):
        graph.graph.initializers["head.scale"].const_value = ir.Tensor(
            graph.graph.initializers["head.scale"].const_value.numpy() * np.float32(3)
        )
        return staged(graph, path, **options)

    monkeypatch.setattr(save, "staged", damaged)
    with pytest.raises(AdapterError, match="does not compute"):
        write(model, make_plan(model, 4), tmp_path / "q.onnx")


def test_a_streamed_file_is_the_message_that_the_library_writes(tmp_path):
    g = Graph()
    g.tensors.append(onnx.numpy_helper.from_array(np.array([b"text"] * 3, dtype=object), "names"))
    hidden = g.node("MatMul", ["x", g.weight("large", 200, 300)])
    g.node("MatMul", [g.node("Cast", [hidden], to=TensorProto.FLOAT), g.weight("small", 300, 5)])
    model = Container(g.save(tmp_path / "float.onnx", ["n", 200])).parse()
    for value in model.graph.initializers.values():
        value.type = value.shape = None
    wanted = ir.to_proto(model)
    stream.write(model, tmp_path / "streamed.onnx")
    found = onnx.load(tmp_path / "streamed.onnx")
    assert (tmp_path / "streamed.onnx").stat().st_size == wanted.ByteSize()
    for proto in (found, wanted):
        tensors = sorted(proto.graph.initializer, key=lambda tensor: tensor.name)
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(tensors)
    assert found == wanted


def test_writing_holds_one_layer_at_a_time(tmp_path, monkeypatch):
    """NumPy's and Python's own memory; a layer is 1 MB as float, the model 24."""
    monkeypatch.setattr(trials, "WHOLE_BYTES", 0)
    monkeypatch.setattr(shelf, "_MEMORY_BYTES", 1)
    g, value = Graph(), "x"
    for index in range(24):
        value = g.node("MatMul", [value, g.weight(f"w{index}", 512, 512)])
    model = read(g.save(tmp_path / "float.onnx", ["n", 512]))
    monkeypatch.setattr(pieces, "_PIECE_BYTES", 1 << 20)
    plan = make_plan(model, 7)
    tracemalloc.start()
    try:
        write(model, plan, tmp_path / "q.onnx")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 14 << 20


def test_reading_a_quantized_file_never_follows_the_numbers_of_its_weights(tmp_path, monkeypatch):
    """ONNX's inference takes 60 bytes for each number that it follows: 5 GB for a ViT-B."""
    g = Graph()
    g.node("MatMul", [g.node("MatMul", ["x", g.weight("wide", 640, 96)]), g.weight("narrow", 96, 8)])
    model = read(g.save(tmp_path / "float.onnx", ["n", 640]))
    written = write(model, make_plan(model, 3), tmp_path / "q.onnx")
    followed, infer = [], onnx.shape_inference.infer_shapes

    def infer_shapes(proto, *, data_prop, **options):
        if data_prop:
            followed.extend(node for node in proto.graph.node if not node.domain)
        return infer(proto, data_prop=data_prop, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", infer_shapes)
    nodes = list(read(written.path).variant.opened.flow.model.graph)
    products = [node for node in nodes if node.op_type == "MatMul"]
    assert {node.op_type for node in followed} >= {"MatMul", "Reshape"}
    layers = [
        plane["layer"] for node in followed for name in node.input if (plane := PLANE_NAME.fullmatch(name))
    ]
    assert set(layers) == {"narrow"}
    assert [list(node.inputs[1].shape) for node in products] == [[640, 96], [96, 8]]
    assert {node.domain for node in nodes} == {""}


def test_a_shelf_gives_back_what_was_laid_on_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "_MEMORY_BYTES", 100)
    weights = [quantize(normal(rows, 30, seed=rows), bits) for rows, bits in ((4, 3), (9, 8), (2, 2))]
    with shelf.Shelf(tmp_path) as place:
        laid = [place.put(weight) for weight in weights]
        for there, weight in zip(reversed(laid), reversed(weights), strict=True):
            np.testing.assert_array_equal(there.codes, weight.codes)
            np.testing.assert_array_equal(there.dequantized(), weight.dequantized())
    assert not list(tmp_path.iterdir())
