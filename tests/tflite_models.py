"""TFLite models for tests: the committed ones, and single operators made with the generated schema and
flatbuffers."""

import dataclasses
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from lampq.core.quantizing.quantizer import as_rows, from_rows
from lampq.core.quantizing.quantizer import quantize as quantize_rows
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = (
    "vit", "vit_float16", "vit_partly_int8", "post_norm", "mobile_vit", "mobile_vit_nhwc", "conv_any_batch",
    "conv_batch_3", "two_signatures",
)  # fmt: skip


def fixture(name):
    return FIXTURES / f"{name}.tflite"


class Builder:
    """A model put together tensor by tensor, by no code of lampq."""

    def __init__(self):
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.model.subgraphs = []
        self.subgraph()

    def subgraph(self):
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs.append(self.graph)

    def buffer(self, data):
        entry = schema.BufferT()
        entry.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.model.buffers.append(entry)
        return len(self.model.buffers) - 1

    def tensor(self, name, shape, data=None, kind="FLOAT32", signature=None, scale=None, buffer=None):
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, np.array(shape, np.int32)
        tensor.type = getattr(schema.TensorType, kind)
        tensor.hasRank = True
        tensor.buffer = buffer if buffer is not None else 0 if data is None else self.buffer(data)
        if signature is not None:
            tensor.shapeSignature = np.array(signature, np.int32)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.atleast_1d(np.float32(scale))
            tensor.quantization.zeroPoint = np.zeros(len(tensor.quantization.scale), np.int64)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, name, inputs, outputs, options=None, version=1, custom=None, **values):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version, code.customCode = version, custom
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if options:
            op.builtinOptions = getattr(schema, f"{options}T")()
            op.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            for key, value in values.items():
                setattr(op.builtinOptions, key, value)
        self.graph.operators.append(op)

    def write(self, path, inputs, outputs):
        self.graph.inputs, self.graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def linear(path, weight, bias=None, *, keep=True, activation=0):
    """x (1, rows, in) through one FULLY_CONNECTED, rows = 1."""
    b = Builder()
    x = b.tensor("x", (1, weight.shape[1]))
    w = b.tensor("w", weight.shape, weight)
    operands = [x, w] if bias is None else [x, w, b.tensor("b", bias.shape, bias)]
    y = b.tensor("y", (1, weight.shape[0]))
    b.op(
        "FULLY_CONNECTED", operands, [y], "FullyConnectedOptions",
        version=5 if bias is not None else 6, keepNumDims=keep, fusedActivationFunction=activation,
    )  # fmt: skip
    return b.write(path, [x], [y])


def matmul(path, weight, *, adjoint, rows=6):
    """x (1, rows, in) through one BATCH_MATMUL with a constant, then a mean over the rows."""
    b = Builder()
    out, source = (weight.shape[-2], weight.shape[-1]) if adjoint else (weight.shape[-1], weight.shape[-2])
    x = b.tensor("x", (1, rows, source))
    w = b.tensor("w", weight.shape, weight)
    y, z = b.tensor("y", (1, rows, out)), b.tensor("z", (1, out))
    b.op("BATCH_MATMUL", [x, w], [y], "BatchMatMulOptions", adjY=adjoint)
    axis = b.tensor("axis", (1,), np.array([1], np.int32), kind="INT32")
    b.op("MEAN", [y, axis], [z], "ReducerOptions")
    return b.write(path, [x], [z])


def convolution(path, weight, bias, *, depthwise=False, side=8, stride=1, activation=0):
    """x (1, side, side, in) through one convolution without padding, then a mean over the positions."""
    b = Builder()
    channels = weight.shape[3]
    out = channels if depthwise else weight.shape[0]
    left = (side - weight.shape[1]) // stride + 1
    x = b.tensor("x", (1, side, side, channels))
    w, v = b.tensor("w", weight.shape, weight), b.tensor("b", bias.shape, bias)
    y, z = b.tensor("y", (1, left, left, out)), b.tensor("z", (1, out))
    values = {"strideW": stride, "strideH": stride, "padding": 1, "fusedActivationFunction": activation}
    if depthwise:
        b.op("DEPTHWISE_CONV_2D", [x, w, v], [y], "DepthwiseConv2DOptions", depthMultiplier=1, **values)
    else:
        b.op("CONV_2D", [x, w, v], [y], "Conv2DOptions", **values)
    axis = b.tensor("axis", (2,), np.array([1, 2], np.int32), kind="INT32")
    b.op("MEAN", [y, axis], [z], "ReducerOptions")
    return b.write(path, [x], [z])


def plan_for(model, width, *, container="bitplane", ranges=None, act_bits=8):
    """A plan with `width(layer)` bits for every layer, and inputs of 8 bits or others where ranges are given."""
    layers = []
    for layer in model.layers():
        bits = width(layer)
        layers.append(
            PlanLayer.of(
                layer,
                weight_bits=bits,
                payload_bytes=model.payload_bytes(layer, bits, container) or 0,
                activation_bits=act_bits if ranges else None,
                activation_range=ranges[layer.name] if ranges else None,
            )
        )
    return Plan(
        layers=tuple(layers), mode="uniform", budget={}, container=container, rest_bytes=model.rest_bytes()
    )


def narrowest(model, bits):
    """The least width of 2, 4, 8 that a layer can have and that is no less than `bits`."""
    return lambda layer: next(
        b for b in (2, 4, 8) if b >= bits and model.payload_bytes(layer, b, "bitplane") is not None
    )


def without(plan, names):
    return dataclasses.replace(plan, layers=tuple(layer for layer in plan.layers if layer.name not in names))


def ranges_of(model, batch):
    found = {}
    for name, values, _ in model.taps(batch):
        low, high = found.get(name, (np.inf, -np.inf))
        found[name] = (min(low, float(values.min())), max(high, float(values.max())))
    return found


def inputs_for(model, samples, seed=0):
    (spec,) = model.input_specs
    shape = (samples, *spec.shape[1:])
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run_directly(path, batch, *, delegates=True):
    """What the runtime says of a file, sample by sample, without lampq."""
    kind = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    native = source["shape"][0]
    rows = []
    for start in range(0, len(batch), native):
        interpreter.set_tensor(source["index"], batch[start : start + native])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"]).reshape(native, -1))
    return np.concatenate(rows)


def relative(found, expected):
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


def stored_constants(path, shape):
    """All float constants of a shape, float32, read by the generated classes alone."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and tuple(tensor.shape) == tuple(shape) and tensor.type in (0, 1):
                kind = np.float32 if tensor.type == 0 else np.float16
                yield np.asarray(data, np.uint8).view(kind).reshape(shape).astype(np.float32)


def dequantized(model, bits):
    """Every layer's values on the grid of a width, by the core's quantizer alone."""
    found = {}
    for layer in model.layers():
        result = quantize_rows(
            as_rows(model.weight(layer.name), layer.channel_axis), bits(layer), grid="narrow"
        )
        found[layer.name] = from_rows(result.dequantized(), layer.shape, layer.channel_axis)
    return found


def opcodes(path):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    return {(names[code.builtinCode], code.version) for code in model.operatorCodes}


def tensor_types(path):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    names = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    return [names[t.type] for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None]
