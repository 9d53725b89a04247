"""Files behind an ONNX model: what is read of them, and which are refused."""

from __future__ import annotations

import hashlib
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import exported, if_model, mlp, normal, saved

from lampq.adapters.onnx import read
from lampq.adapters.onnx.outline import outline
from lampq.core.values.errors import AdapterError, LampqError

node = helper.make_node


# ---- files -----------------------------------------------------------------------------------------------


def test_the_outline_holds_no_large_tensor_and_gives_back_every_byte():
    data = exported("vit", "dynamo").read_bytes()
    short = outline(memoryview(data), "me")
    assert len(short) < len(data)
    original, rest = onnx.ModelProto.FromString(data), onnx.ModelProto.FromString(short)
    for tensor in rest.graph.initializer:
        truth = next(t for t in original.graph.initializer if t.name == tensor.name)
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {e.key: e.value for e in tensor.external_data}
            start, size = int(entries["offset"]), int(entries["length"])
            assert entries["location"] == "me"
            assert data[start : start + size] == truth.raw_data
            tensor.raw_data = truth.raw_data
            del tensor.external_data[:]
            tensor.ClearField("data_location")
        else:
            assert len(truth.raw_data) < 1024
    assert rest == original


@pytest.mark.parametrize("field", ["raw", "float_data", "int32_data"])
def test_tensors_are_read_whatever_field_holds_them(tmp_path, field):
    model, weight = mlp(1), normal(16, 100)
    if field == "raw":
        tensor = numpy_helper.from_array(weight, "fc0.weight")
    elif field == "float_data":
        tensor = helper.make_tensor("fc0.weight", TensorProto.FLOAT, weight.shape, weight.ravel().tolist())
        assert tensor.float_data
    else:
        weight = weight.astype(np.float16)
        tensor = helper.make_tensor("fc0.weight", TensorProto.FLOAT16, weight.shape, weight.ravel().tolist())
        assert tensor.int32_data
        cast = node("Cast", ["x"], ["c"], to=TensorProto.FLOAT16)
        back = node("Cast", ["z"], ["logits"], to=TensorProto.FLOAT)
        del model.graph.node[:]
        model.graph.node.extend([cast, node("MatMul", ["c", "fc0.weight"], ["z"]), back])
    model.graph.initializer[0].CopyFrom(tensor)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 100
    opened = read(saved(model, tmp_path))
    np.testing.assert_array_equal(opened.weight("fc0"), weight.astype(np.float32))


def _external(folder, **changes: str):
    """An MLP with its data beside it, and the entries of its first tensor changed."""
    path = folder / "model.onnx"
    onnx.save_model(
        mlp(2),
        path,
        save_as_external_data=True,
        location="data.bin",
        size_threshold=0,
        convert_attribute=False,
    )
    model = onnx.load(path, load_external_data=False)
    for key, value in changes.items():
        entries = [e for e in model.graph.initializer[0].external_data if e.key == key]
        (entries or [model.graph.initializer[0].external_data.add(key=key)])[0].value = value
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_hashed_and_counted(tmp_path):
    path = _external(tmp_path)
    model = read(path)
    plain = mlp(2)
    for tensor in plain.graph.initializer:
        stem = tensor.name.removesuffix(".weight")
        np.testing.assert_array_equal(model.weight(stem), numpy_helper.to_array(tensor))
    data = (tmp_path / "data.bin").read_bytes()
    assert model.digest == hashlib.sha256(path.read_bytes() + data).hexdigest()
    assert model.file_bytes() == path.stat().st_size + len(data)
    x = normal(3, 16)
    np.testing.assert_allclose(model.run(x), ReferenceEvaluator(plain).run(None, {"x": x})[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": "gone.bin"}, "missing"),
        ({"location": "../data.bin"}, "outside the model's folder"),
        ({"location": "a/../../data.bin"}, "outside the model's folder"),
        ({"location": "/etc/hostname"}, "outside the model's folder"),
        ({"location": "C:\\data.bin"}, "outside the model's folder"),
        ({"location": ""}, "outside the model's folder"),
        ({"location": "link.bin"}, "link that leaves"),
        ({"location": "folder"}, "no file"),
        ({"location": "nul\0.bin"}, "missing"),
        ({"offset": "1000000"}, "needs 1024 bytes, but only 0"),
        ({"offset": "-4"}, "non-negative|impossible offset"),
        ({"length": "1000"}, "needs 1024 bytes, but only 1000"),
        ({"offset": "many"}, "no valid ONNX"),
    ],
)
def test_external_data_elsewhere_or_too_short_is_refused(tmp_path, changes, message):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "data.bin").write_bytes(bytes(5000))
    (folder / "link.bin").symlink_to(tmp_path / "data.bin")
    (folder / "folder").mkdir()
    path = _external(folder, **changes)
    with pytest.raises(AdapterError, match=message) as caught:
        read(path)
    _assert_readable(caught.value, path)


def test_a_data_file_cut_off_after_opening_is_noticed(tmp_path):
    model = read(_external(tmp_path))
    (tmp_path / "data.bin").write_bytes(b"")
    with pytest.raises(AdapterError, match="cut off while in use"):
        model.layers()


def test_a_replaced_file_does_not_change_an_open_model(tmp_path):
    path = saved(mlp(2), tmp_path)
    model = read(path)
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    other.replace(path)
    assert model.layers()[0].size == 256
    assert model.digest == hashlib.sha256(mlp(2).SerializeToString()).hexdigest()


def _assert_readable(err: LampqError, path) -> None:
    assert str(path) in str(err)
    assert "\n" not in str(err)
    assert len(str(err)) < 400


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x" * 100)


STRANGERS = {
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "text": (lambda p: p.write_text("this is some text\n" * 10), "is text"),
    "lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "zip": (_zip, "ZIP"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": [1.0] * 50})), "pickle"),
    "tflite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100)), "TFLite"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(100)), "gzip"),
    "zeros": (lambda p: p.write_bytes(bytes(1000)), "no ONNX"),
    "garbage": (lambda p: p.write_bytes(np.random.default_rng(1).bytes(5000)), "no ONNX"),
    "folder": (lambda p: p.mkdir(), "folder"),
    "missing": (lambda p: None, "no such file"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_other_files_are_refused_in_one_line(tmp_path, name):
    path = tmp_path / "model.onnx"
    make, message = STRANGERS[name]
    make(path)
    with pytest.raises(AdapterError, match=message) as caught:
        read(path)
    _assert_readable(caught.value, path)


def _broken(**changes) -> onnx.ModelProto:
    model = mlp(2)
    for name, value in changes.items():
        if name == "op":
            model.graph.node[0].op_type = value
        elif name == "input":
            model.graph.node[0].input[0] = value
        elif name == "dims":
            model.graph.initializer[0].dims[:] = value
        elif name == "extra":
            model.graph.input.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, [1]))
        elif name == "order":
            first = model.graph.node.pop(0)
            model.graph.node.append(first)
        elif name == "no_output":
            del model.graph.output[:]
        elif name == "no_shape":
            model.graph.input[0].type.tensor_type.ClearField("shape")
        elif name == "no_graph":
            model.ClearField("graph")
        elif name == "integers":
            model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
        elif name == "constant":
            model.graph.output[0].name = "fc0.weight"
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "Nonsense"}, "no valid ONNX"),
        ({"input": "nowhere"}, "no valid ONNX"),
        ({"dims": [16, 17]}, "no valid ONNX|needs 1088 bytes"),
        ({"dims": [-16, 16]}, "impossible shape"),
        ({"dims": [1 << 40, 1 << 40]}, "needs"),
        ({"order": True}, "no valid ONNX"),
        ({"no_graph": True}, "no ONNX"),
    ],
)
def test_damaged_graphs_are_refused_in_one_line(tmp_path, changes, message):
    path = saved(_broken(**changes), tmp_path)
    with pytest.raises(AdapterError, match=message) as caught:
        read(path)
    _assert_readable(caught.value, path)


@pytest.mark.parametrize("change", ["extra", "no_output", "no_shape", "integers", "constant"])
def test_no_model_is_refused_for_what_goes_in_and_comes_out(tmp_path, change):
    model = read(saved(_broken(**{change: "second"}), tmp_path))
    unused = change in ("no_output", "constant")
    assert [site.name for site in model.variant.opened.sites] == ([] if unused else ["fc0", "fc1"])
    assert any(head.judged for head in model.heads) is not unused
    if unused:
        with pytest.raises(AdapterError, match="has no output to judge"):
            model.run(normal(2, 16))


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    model = mlp(2)
    weight = normal(16, 4)
    weight[3, 3] = np.nan
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weight, "fc1.weight"))
    with pytest.raises(AdapterError, match="layer fc1: the values hold NaN"):
        read(saved(model, tmp_path)).layers()


def test_names_of_layers_are_checked(tmp_path):
    model = read(saved(mlp(2), tmp_path))
    with pytest.raises(AdapterError, match="no layer 'fc9'"):
        model.weight("fc9")
    with pytest.raises(AdapterError, match="no layer 'fc9'"):
        model.with_weights({"fc9": normal(16, 4)})
    with pytest.raises(AdapterError, match="has shape \\(16, 4\\)"):
        model.with_weights({"fc1": normal(4, 16)})


def test_truncated_files_are_refused_wherever_they_end(tmp_path):
    data = exported("vit", "legacy").read_bytes()
    path = tmp_path / "model.onnx"
    for end in [1, 7, 100, 1000, *np.linspace(2000, len(data) - 1, 25).astype(int)]:
        path.write_bytes(data[:end])
        with pytest.raises(AdapterError) as caught:
            read(path)
        _assert_readable(caught.value, path)


def test_mutated_files_never_crash(tmp_path):
    """Every damaged file is either refused with an AdapterError or read as the model that it now is."""
    rng = np.random.default_rng(5)
    path = tmp_path / "model.onnx"
    whole = [
        mlp(3).SerializeToString(),
        exported("vit", "legacy").read_bytes(),
        if_model().SerializeToString(),
    ]
    heads = [np.flatnonzero(_structure(data)) for data in whole]
    read_count = 0
    for turn in range(300):
        kind = turn % 3
        data = bytearray(whole[kind])
        for _ in range(int(rng.integers(1, 4))):
            # Mutate structure rather than the numbers of a weight.
            at = int(rng.choice(heads[kind]))
            how = int(rng.integers(4))
            if how == 0:
                data[at] = int(rng.integers(256))
            elif how == 1:
                data[at] ^= 1 << int(rng.integers(8))
            elif how == 2:
                del data[at : at + int(rng.integers(1, 20))]
            else:
                data[at:at] = rng.bytes(int(rng.integers(1, 20)))
            heads[kind] = heads[kind][heads[kind] < len(data) - 1]
        path.write_bytes(data)
        try:
            model = read(path)
            records = model.layers()
        except LampqError as err:
            assert "\n" not in str(err)
            continue
        read_count += 1
        names = [record.name for record in records]
        assert len(set(names)) == len(names)
        for record in records:
            assert model.weight(record.name).shape == record.shape
    assert 0 < read_count < 300


def _structure(data: bytes) -> np.ndarray:
    """Bytes of a model that are not the numbers of a large tensor."""
    keep = np.ones(len(data), dtype=bool)
    model = onnx.ModelProto.FromString(data)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 64:
            start = data.find(tensor.raw_data)
            keep[start : start + len(tensor.raw_data)] = False
    return keep
