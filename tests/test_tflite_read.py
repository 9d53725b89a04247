"""What is found in .tflite files: layers, names, kinds, what is left alone, and what is refused."""

import hashlib

import numpy as np
import pytest
from tflite_models import NAMES, Builder, convolution, fixture, linear, matmul, stored_constants

import lampq
from lampq.adapters.tflite import read
from lampq.adapters.tflite.names import module_path
from lampq.core.values.errors import AdapterError
from lampq.core.values.fingerprint import Fingerprint

pytestmark = pytest.mark.usefixtures("weights_of_any_size")

VIT = [
    ("patch_embed.proj", "patch_embed", (32, 4, 4, 3)),
    *(
        (f"blocks.{block}.{name}", kind, shape)
        for block in (0, 1)
        for name, kind, shape in (
            ("attn.qkv", "qkv", (96, 32)),
            ("attn.proj", "proj", (32, 32)),
            ("mlp.fc1", "fc1", (64, 32)),
            ("mlp.fc2", "fc2", (32, 64)),
        )
    ),
    ("head", "head", (10, 32)),
]


@pytest.mark.parametrize("name", ["vit", "vit_float16"])
def test_layers_of_a_vit_have_their_module_paths_kinds_and_shapes(name):
    layers = read(fixture(name)).layers()
    assert [(layer.name, layer.kind, layer.shape) for layer in layers] == VIT
    assert all(layer.channel_axis == 0 for layer in layers)


def test_layers_of_a_mixture_of_convolutions_and_attention():
    layers = {layer.name: layer for layer in read(fixture("mobile_vit")).layers()}
    assert {name: layer.kind for name, layer in layers.items()} == {
        "stem": "conv", "block.expand": "conv", "block.depthwise": "conv", "block.reduce": "conv",
        "local": "conv", "transformer.attn.qkv": "qkv", "transformer.attn.proj": "proj",
        "transformer.mlp.fc1": "fc1", "transformer.mlp.fc2": "fc2", "fuse": "conv", "classifier": "head",
    }  # fmt: skip
    assert layers["block.depthwise"].shape == (1, 3, 3, 32)
    assert layers["block.depthwise"].channels == 32


def test_the_packed_weights_of_multi_head_attention_are_told_apart():
    layers = read(fixture("post_norm")).layers()
    assert [(layer.name, layer.kind) for layer in layers[:4]] == [
        ("encoder.0.self_attn.in_proj", "qkv"),
        ("encoder.0.self_attn.out_proj", "proj"),
        ("encoder.0.linear1", "fc1"),
        ("encoder.0.linear2", "fc2"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_the_generated_classes_read(name):
    model = read(fixture(name))
    for layer in model.layers():
        weight = model.weight(layer.name)
        assert (
            sum(np.array_equal(weight, stored) for stored in stored_constants(fixture(name), layer.shape))
            >= 1
        )
        np.testing.assert_allclose(layer.weight.mean, weight.mean(axis=_others(layer)), rtol=1e-4, atol=1e-7)


def _others(layer):
    return tuple(axis for axis in range(len(layer.shape)) if axis != layer.channel_axis)


def test_a_folded_normalization_is_taken_out_of_the_fingerprint():
    """In a post-norm network the scale folded into linear1 is still in the graph; dividing by it gives the
    weight."""
    model = read(fixture("post_norm"))
    layer = next(layer for layer in model.layers() if layer.name == "encoder.0.linear1")
    stored = model.weight(layer.name)
    assert not layer.fingerprint.matches(Fingerprint.from_array(stored))
    scales = [s for s in stored_constants(fixture("post_norm"), (24,)) if s.min() > 0.4 and s.max() < 1.6]
    assert any(layer.fingerprint.matches(Fingerprint.from_array(stored / scale)) for scale in scales)
    kept = next(layer for layer in model.layers() if layer.name == "encoder.0.linear2")
    assert kept.fingerprint.matches(Fingerprint.from_array(model.weight(kept.name)))


def test_quantized_layers_are_left_alone_and_listed():
    model = read(fixture("vit_partly_int8"))
    names = [f"blocks.{block}.attn.{name}" for block in (0, 1) for name in ("qkv", "proj")]
    assert model.stored_bits() == dict.fromkeys(names, (8, "int8"))
    reason = "already quantized (INT8); --requantize takes its rounded values"
    assert model.skipped == tuple((name, reason) for name in names)
    assert [layer.name for layer in model.layers()] == [name for name, _, _ in VIT if name not in names]


def test_a_weight_shared_by_two_signatures_is_one_layer():
    model = read(fixture("two_signatures"))
    assert [(layer.name, len(layer.shares)) for layer in model.layers()] == [
        ("first", 0),
        ("second", 0),
        ("head", 1),
    ]
    tail = read(fixture("two_signatures"), signature="tail")
    assert tail.input_specs[0].shape == (1, 16)
    assert next(layer.name for layer in tail.layers()) == "head"
    with pytest.raises(AdapterError, match="no signature 'x'; it has whole, tail"):
        read(fixture("two_signatures"), signature="x")


def test_the_user_has_the_last_word_on_kinds():
    model = read(fixture("vit"), kinds={"blocks.*.mlp.*": "linear"})
    assert [layer.kind for layer in model.layers()].count("linear") == 4
    with pytest.raises(AdapterError, match="matches no layer"):
        read(fixture("vit"), kinds={"nothing.*": "fc1"})


def test_the_input_and_digest():
    model = read(fixture("vit"))
    assert (model.format, model.grid) == ("tflite", "narrow")
    assert model.digest == hashlib.sha256(fixture("vit").read_bytes()).hexdigest()
    assert model.file_bytes() == fixture("vit").stat().st_size
    assert (model.input_specs[0].shape, model.input_specs[0].layout) == ((1, 3, 16, 16), "NCHW")
    assert read(fixture("mobile_vit_nhwc")).input_specs[0].layout == "NHWC"
    assert read(fixture("conv_any_batch")).input_specs[0].shape == (None, 3, 12, 12)
    assert read(fixture("conv_batch_3")).input_specs[0].batch == 3


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (["a.B/torch.nn.modules.linear.Linear_fc;1"], "fc"),
        (
            [
                "m.V/m.B_0/torch.nn.modules.normalization.LayerNorm_norm;;m.V/m.B_0/torch.nn.modules.linear.Linear_q;"
            ],
            "0.q",
        ),
        (
            ["arith.constant3", "model/encoder/dense_2/MatMul;model/encoder/dense_2/BiasAdd"],
            "model.encoder.dense_2",
        ),
        (["sequential/conv2d/Conv2D"], "sequential.conv2d"),
        (["tfl.pseudo_qconst4", "StatefulPartitionedCall:0"], None),
        (["model/tf.linalg.matmul/MatMul"], "model.tf.linalg.matmul"),
    ],
)
def test_module_paths(names, path):
    assert module_path(names) == path


@pytest.mark.parametrize("adjoint", [False, True])
def test_a_product_with_a_constant_is_a_layer(tmp_path, adjoint):
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    (layer,) = read(matmul(tmp_path / "m.tflite", weight, adjoint=adjoint)).layers()
    assert (layer.shape, layer.channel_axis) == ((3, 4), 0 if adjoint else 1)


def test_two_tensors_on_one_buffer_with_different_shapes_are_left_alone(tmp_path):
    b = Builder()
    shared = b.buffer(np.ones(16, np.float32))
    x, w, v = (
        b.tensor("x", (1, 4)),
        b.tensor("w", (4, 4), buffer=shared),
        b.tensor("v", (16, 1), buffer=shared),
    )
    y, n, z = b.tensor("y", (1, 4)), b.tensor("n", (4, 1)), b.tensor("z", (4, 16))
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
    shape = b.tensor("s", (2,), np.array([4, 1], np.int32), kind="INT32")
    b.op("RESHAPE", [y, shape], [n], "ReshapeOptions")
    b.op("FULLY_CONNECTED", [n, v, -1], [z], "FullyConnectedOptions", version=6)
    axis, mean = b.tensor("axis", (1,), np.array([0], np.int32), kind="INT32"), b.tensor("mean", (1, 16))
    b.op("MEAN", [z, axis], [mean], "ReducerOptions", keepDims=True)
    model = read(b.write(tmp_path / "m.tflite", [x], [mean]))
    assert model.layers() == ()
    assert {reason for _, reason in model.skipped} == {"used with several shapes (64 bytes)"}


def test_unknown_custom_operators_are_named(tmp_path):
    b = Builder()
    x, y, z = b.tensor("x", (1, 4)), b.tensor("net/mystery", (1, 4)), b.tensor("z", (1, 3))
    w = b.tensor("net/dense/MatMul", (3, 4), np.ones((3, 4), np.float32))
    b.op("CUSTOM", [x], [y], custom="Mystery")
    b.op("FULLY_CONNECTED", [y, w, -1], [z], "FullyConnectedOptions", version=6)
    model = read(b.write(tmp_path / "m.tflite", [x], [z]))
    assert model.skipped == (("net.mystery", "operator Mystery is unknown here and left alone"),)
    assert [layer.name for layer in model.layers()] == ["net.dense"]
    with pytest.raises(AdapterError, match="Mystery"):
        model.run(np.ones((1, 4), np.float32))


def test_constants_of_custom_operators_are_listed_with_their_bytes(tmp_path):
    b = Builder()
    x, y = b.tensor("x", (1, 4)), b.tensor("net/up", (1, 4))
    w = b.tensor("w", (9, 4), np.ones((9, 4), np.float32))
    b.op("CUSTOM", [x, w], [y], custom="Upsample")
    model = read(b.write(tmp_path / "m.tflite", [x], [y]))
    assert model.skipped == (("net.up", "operator Upsample is unknown here and left alone (144 bytes)"),)


def refused(path, message, **options):
    with pytest.raises(AdapterError, match=message) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path.name) in str(caught.value)


def test_files_that_are_no_models(tmp_path):
    refused(tmp_path / "none.tflite", "no such file")
    refused(tmp_path, "is a folder")
    for name, content in (("empty", b""), ("text", b"hello, world"), ("zip", b"PK\x03\x04" + bytes(100))):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        refused(path, "cannot be read|is no TFLite model")
    whole = fixture("vit").read_bytes()
    path = tmp_path / "half.tflite"
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "beyond the end|cut off|damaged")


def test_references_outside_the_file_are_refused(tmp_path):
    def model(name, spoil):
        b = Builder()
        x, y = b.tensor("x", (1, 4)), b.tensor("y", (1, 3))
        w = b.tensor("w", (3, 4), np.ones((3, 4), np.float32))
        b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
        spoil(b, b.graph.operators[0], b.graph.tensors[w])
        return b.write(tmp_path / f"{name}.tflite", [x], [y])

    def outside(b, op, w):
        b.model.buffers[w.buffer].data, b.model.buffers[w.buffer].offset = None, 10**9
        b.model.buffers[w.buffer].size = 48

    spoilers = {
        "buffer": (lambda b, op, w: setattr(w, "buffer", 9), "buffer 9 of 2"),
        "data": (outside, "cut off"),
        "tensor": (lambda b, op, w: setattr(op, "inputs", np.array([0, 7], np.int32)), "tensor 7 of 3"),
        "kind": (lambda b, op, w: setattr(op, "opcodeIndex", 5), "kind 5 of 1"),
        "shape": (
            lambda b, op, w: setattr(w, "shape", np.array([3, 5], np.int32)),
            "needs 60 bytes; its buffer has 48",
        ),
        "huge": (
            lambda b, op, w: setattr(w, "shape", np.array([2**31 - 1] * 4, np.int32)),
            "impossible shape",
        ),
        "type": (lambda b, op, w: setattr(w, "type", 99), "type 99"),
        "external": (lambda b, op, w: setattr(w, "externalBuffer", 1), "in another file"),
        "version": (lambda b, op, w: setattr(b.model, "version", 7), "schema version 7"),
    }
    for name, (spoil, message) in spoilers.items():
        refused(model(name, spoil), message)


def test_weights_that_are_no_numbers_are_named(tmp_path):
    weight = np.ones((3, 4), np.float32)
    weight[1, 2] = np.nan
    model = read(linear(tmp_path / "m.tflite", weight))
    with pytest.raises(AdapterError, match=r"layer \S+: .*NaN"):
        model.layers()


def test_unknown_layers_are_refused():
    model = read(fixture("vit"))
    with pytest.raises(AdapterError, match="no layer 'x'"):
        model.weight("x")
    with pytest.raises(AdapterError, match=r"shape \(10, 32\), its new weight \(2, 2\)"):
        model.with_weights({"head": np.ones((2, 2))})


def test_a_depthwise_weight_keeps_its_channels_last(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(1, 3, 3, 5)).astype(np.float32)
    (layer,) = read(
        convolution(tmp_path / "m.tflite", weight, np.zeros(5, np.float32), depthwise=True)
    ).layers()
    np.testing.assert_allclose(layer.weight.mean, weight.mean(axis=(0, 1, 2)), rtol=1e-5)


def test_data_behind_the_tables_of_very_large_files_is_read(tmp_path):
    """Beyond 2 GiB buffers say where their data lies in the file instead of holding it."""
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    end = 10**6
    for _ in range(2):
        b = Builder()
        x, w, y = b.tensor("x", (1, 4)), b.tensor("w", (3, 4), weight), b.tensor("y", (1, 3))
        b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions", version=6)
        held = b.model.buffers[b.graph.tensors[w].buffer]
        held.data, held.offset, held.size = None, end, weight.nbytes
        path = b.write(tmp_path / "m.tflite", [x], [y])
        end = path.stat().st_size
    path.write_bytes(path.read_bytes() + weight.tobytes())
    model = read(path)
    np.testing.assert_array_equal(model.weight("w"), weight)
    batch = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(np.asarray(model.run(batch)), batch @ weight.T)
    np.testing.assert_allclose(
        np.asarray(model.with_weights({"w": 2 * weight}).run(batch)), 2 * batch @ weight.T
    )


@pytest.mark.parametrize(
    ("name", "requantize", "stored"),
    [
        ("vit", False, 4 * 18240),
        ("vit_float16", False, 2 * 18240),
        ("vit_partly_int8", False, 4 * 10048),
        # As floats 8,192 of the weights are in memory alone; in the file they are codes.
        ("vit_partly_int8", True, 4 * 10048 + 8192),
    ],
)
def test_inspect_tells_what_the_file_holds_the_weights_in(name, requantize, stored):
    path = fixture(name)
    share = f"{stored:,} of {path.stat().st_size:,} bytes"
    assert share in lampq.inspect(path, requantize=requantize).facts["coverage"]
