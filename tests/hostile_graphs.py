"""Hostile ONNX files."""

import os

import numpy as np
from hostile_parts import ESCAPES, onnx_file, weight_of
from onnx import TensorProto, helper, numpy_helper


def _calls(functions):
    """A function that calls another, by name."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    for name, called in functions:
        nodes = [
            helper.make_node(inner, [f"v{i}"], [f"v{i + 1}"], domain="" if inner == "Relu" else "f")
            for i, inner in enumerate(called)
        ]
        yield helper.make_function("f", name, ["v0"], [f"v{len(called)}"], nodes, imports)


def onnx_files(folder):
    """Graphs that grow, never end, or point where they should not."""
    product = helper.make_node("MatMul", ["x", "w"], ["h"])

    def call(name):
        return [product, helper.make_node(name, ["h"], ["y"], domain="f")]

    def external(name, location, shape=(1 << 19, 1 << 19)):
        tensor = TensorProto(name="w", data_type=1, dims=shape, data_location=1)
        length = str(4 * shape[0] * shape[1])
        for key, value in (("location", location), ("offset", "0"), ("length", length)):
            tensor.external_data.add(key=key, value=value)
        onnx_file(folder / name, [helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor])

    doubling = [("f0", ["Relu"]), *((f"f{i}", [f"f{i - 1}"] * 2) for i in range(1, 40))]
    onnx_file(folder / "doubling.onnx", call("f39"), [weight_of()], functions=list(_calls(doubling)))
    deep = [("f0", ["Relu"]), *((f"f{i}", [f"f{i - 1}"]) for i in range(1, 2000))]
    onnx_file(folder / "deep.onnx", call("f1999"), [weight_of()], functions=list(_calls(deep)))
    circle = [("f0", ["f1"]), ("f1", ["f0"])]
    onnx_file(folder / "circle.onnx", call("f0"), [weight_of()], functions=list(_calls(circle)))
    (folder / "nodes.onnx").write_bytes(_nodes_without_end())
    (folder / "nested.onnx").write_bytes(_nested_graphs(3000))
    loop = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, None),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(1 << 60), "times"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    turns = helper.make_node("Loop", ["times", "yes", "h"], ["y"], body=loop)
    onnx_file(folder / "endless.onnx", [product, turns], [weight_of(), *constants])
    values = numpy_helper.from_array(np.ones(3, np.float32), "s")
    places = numpy_helper.from_array(np.arange(3), "places")
    sparse = helper.make_sparse_tensor(values, places, [1 << 19, 1 << 19])
    second = helper.make_node("MatMul", ["h", "s"], ["y"])
    onnx_file(folder / "sparse.onnx", [product, second], [weight_of()], sparse=[sparse])
    constant = helper.make_node("Constant", [], ["s"], sparse_value=sparse)
    onnx_file(folder / "sparse_constant.onnx", [product, constant, second], [weight_of()])
    with (folder / "holes.bin").open("wb") as handle:
        handle.truncate(1 << 40)
    os.mkfifo(folder / "pipe.bin")
    (folder / "endless.bin").symlink_to("/dev/zero")
    for name, location in (
        ("holes.onnx", "holes.bin"),
        ("pipe.onnx", "pipe.bin"),
        ("device.onnx", "endless.bin"),
        ("outside.onnx", "../../etc/passwd"),
        ("absolute.onnx", "/etc/passwd"),
    ):
        external(name, location)
    os.mkfifo(folder / "itself.onnx")
    (folder / "zeros.onnx").symlink_to("/dev/zero")
    onnx_file(
        folder / "input.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [weight_of()],
        shape=(1 << 34, 64),
    )
    named = f"head{ESCAPES}.weight"
    onnx_file(folder / "escapes.onnx", [helper.make_node("MatMul", ["x", named], ["y"])], [weight_of(named)])
    missing = [helper.make_node("MatMul", ["x", f"none{ESCAPES}"], ["y"])]
    onnx_file(folder / "undefined.onnx", missing, [weight_of()])
    return {path.name: ["inspect", path.name] for path in folder.glob("*.onnx") if path.name != "m.onnx"}


def _field(number, content):
    size, out = len(content), bytearray([number << 3 | 2])
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes(out) + bytes([size]) + content


def _nodes_without_end():
    node = _field(1, _field(1, b"x") + _field(2, b"x") + _field(4, b"Relu"))
    return b"\x08\x08" + _field(7, node * 300_000)


def _nested_graphs(depth):
    graph = b""
    for _ in range(depth):
        graph = _field(1, _field(4, b"If") + _field(5, _field(1, b"then_branch") + _field(6, graph)))
    return b"\x08\x08" + _field(7, graph)
