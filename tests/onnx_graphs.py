"""Small ONNX models, plans for them, and independent ways to run what was written."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from lampq.core.quantizing.quantizer import as_rows, from_rows, quantize
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer


class Graph:
    """A small ONNX graph, node by node."""

    def __init__(self, seed=0):
        self.nodes, self.tensors = [], []
        self.random = np.random.default_rng(seed)

    def weight(self, name, *shape, dtype=np.float32):
        return self.tensor(name, self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:])), dtype)

    def tensor(self, name, array, dtype=np.float32):
        self.tensors.append(numpy_helper.from_array(np.asarray(array).astype(dtype), name))
        return name

    def node(self, op, inputs, output=None, **attributes):
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def save(self, path, shape, *, opset=18, dtype=TensorProto.FLOAT, inputs=(), ir_version=8):
        output = helper.make_tensor_value_info(self.nodes[-1].output[0], dtype, ["n", None])
        self.nodes[-1].output[0] = output.name = "logits"
        taken = [helper.make_tensor_value_info("x", dtype, shape), *inputs]
        graph = helper.make_graph(self.nodes, "g", taken, [output], self.tensors)
        domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=ir_version, producer_name="test")
        model.metadata_props.add(key="author", value="somebody")
        onnx.save(model, path)
        return path


def make_plan(model, bits, activations=None, container="bitplane", ranges=None):
    """A plan with `bits` for all layers, or by name; `activations` likewise."""
    layers = []
    for layer in model.layers():
        width = bits.get(layer.name) if isinstance(bits, dict) else bits
        if width is None:
            continue
        taken = activations.get(layer.name) if isinstance(activations, dict) else activations
        layers.append(
            PlanLayer.of(
                layer,
                weight_bits=width,
                payload_bytes=0,
                activation_bits=taken,
                activation_range=(ranges or {}).get(layer.name, (-3.0, 3.0)) if taken else None,
            )
        )
    return Plan(layers=tuple(layers), mode="uniform", budget={}, container=container, rest_bytes=0)


def rounded(model, bits):
    """The float weights that a plan stands for, by the core's quantizer alone."""
    return {
        layer.name: from_rows(
            quantize(as_rows(model.weight(layer.name), layer.channel_axis), bits).dequantized(),
            layer.shape,
            layer.channel_axis,
        )
        for layer in model.layers()
    }


def run(path, batch):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["logits"], {"x": batch})[
        0
    ]


def optimized_ops(path, tmp_path):
    """Operators that ONNX Runtime is left with."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def batch_for(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def transformer(path, *, batch="n", opset=18, dtype=TensorProto.FLOAT, seed=0):
    """A block as exporters write it: MatMul with bias, a weight behind Transpose, a residual, Gemm."""
    real = np.float16 if dtype == TensorProto.FLOAT16 else np.float32
    g = Graph(seed)
    qkv = g.node("MatMul", ["x", g.weight("attn.qkv.weight", 16, 48, dtype=real)])
    qkv = g.node("Add", [g.weight("attn.qkv.bias", 48, dtype=real), qkv])
    parts = [f"part{i}" for i in range(3)]
    split = helper.make_node(
        "Split", [qkv, g.tensor("thirds", [16, 16, 16], np.int64)], parts, name="split", axis=-1
    )
    g.nodes.append(split)
    turned = g.node("Transpose", ["part1"], perm=[0, 2, 1])
    mixed = g.node("MatMul", [g.node("Softmax", [g.node("MatMul", ["part0", turned])]), "part2"])
    stored = g.weight("attn.proj.weight", 16, 16, dtype=real)
    mixed = g.node("MatMul", [mixed, g.node("Transpose", [stored], perm=[1, 0])])
    mixed = g.node("Add", [mixed, "x"])
    hidden = g.node("MatMul", [mixed, g.weight("mlp.fc1.weight", 16, 40, dtype=real)])
    hidden = g.node("Relu", [g.node("Add", [hidden, g.weight("mlp.fc1.bias", 40, dtype=real)])])
    hidden = g.node("MatMul", [hidden, g.weight("mlp.fc2.weight", 40, 16, dtype=real)])
    pooled = g.node("Gather", [hidden, g.tensor("first", 0, np.int64)], axis=1)
    head = [pooled, g.weight("head.weight", 10, 16, dtype=real), g.weight("head.bias", 10, dtype=real)]
    g.node("Gemm", head, transB=1, alpha=0.5, beta=2.0)
    return g.save(path, [batch, 6, 16], opset=opset, dtype=dtype)


def network(path, *, opset=18):
    """Convolutions one after another, a grouped one among them, then a residual and a head."""
    g = Graph(3)
    first = g.node("Conv", ["x", g.weight("stem.weight", 8, 3, 3, 3), g.weight("stem.bias", 8)], pads=[1] * 4)
    first = g.node("Relu", [first])
    second = g.node("Conv", [first, g.weight("mid.weight", 8, 4, 3, 3)], group=2, pads=[1] * 4)
    third = g.node("Conv", [second, g.weight("out.weight", 8, 8, 1, 1), g.weight("out.bias", 8)])
    pooled = g.node("GlobalAveragePool", [g.node("Add", [third, first])])
    pooled = g.node("Flatten", [pooled])
    g.node("Gemm", [pooled, g.weight("head.weight", 8, 10), g.weight("head.bias", 10)])
    return g.save(path, ["n", 3, 8, 8], opset=opset)
