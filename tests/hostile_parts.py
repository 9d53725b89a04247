"""What hostile files of several kinds are made of."""

import io
import os

import numpy as np
from onnx import TensorProto, helper, numpy_helper

ESCAPES = "\x1b]0;title\x07\x1b]52;c;Y2xpcA==\x07\x1b[2J\u202e\u009b31m"
"""Sets a terminal's title and clipboard, wipes it, turns text around."""


class Exploit:
    """Leaves a file behind where its pickle is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def weight_of(name="w"):
    values = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
    return numpy_helper.from_array(values, name)


def onnx_file(path, nodes, constants, *, functions=(), shape=("n", 64), sparse=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], None])],
        constants,
        sparse_initializer=sparse,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    path.write_bytes(model.SerializeToString())


def array_header(shape, descr="<f4"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def profile_with(data):
    words = ["profile", "m.onnx", "--data", data, "--fisher-draws", "0", "--bits", "4"]
    return [*words, "-o", "out.json", "--force"]
