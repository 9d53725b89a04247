"""Speed of written ONNX files: float, int8, mixed widths packed, with quantized inputs and without.

    python benchmarks/onnx_speed.py [--model vit.onnx] [--batch 1] [--threads 1,2] [--rounds 40] [--name NAME]

Without a model, a random one of ViT-S size is made. All files run in turns in one process, and the fastest
run of each counts; what else the machine does then troubles all alike. With one thread its own time counts,
with more the clock's. Loading is timed in fresh processes, the files cached.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import report
from onnx import TensorProto, helper, numpy_helper

from lampq.adapters.onnx import inputs
from lampq.adapters.onnx.backend import OnnxModel
from lampq.adapters.onnx.reader import read
from lampq.adapters.onnx.write import write
from lampq.core.measuring.measure import measure_activations
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer

# Widths dealt to the layers in turn.
MIXED = (2, 3, 4, 5, 6, 7, 8)
FILES = (
    ("int8, inputs 8 bits", (8,), 8, "int8"),
    ("mixed 2-8 packed, inputs 8 bits", MIXED, 8, "bitplane"),
    ("3 bits packed, inputs 8 bits", (3,), 8, "bitplane"),
    ("int8, inputs float", (8,), None, "int8"),
    ("mixed 2-8 packed, inputs float", MIXED, None, "bitplane"),
)
INTEGER_KERNELS = ("MatMulIntegerToFloat", "QLinearMatMul", "QLinearConv", "QGemm")
LOADER = """
import re, sys, time
import onnxruntime as ort
def memory(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
options = ort.SessionOptions()
options.intra_op_num_threads = 1
before, began = memory("VmRSS"), time.perf_counter()
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(1e3 * (time.perf_counter() - began), memory("VmHWM") - before)
"""


def main() -> None:
    """Write the files, load and run them, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--name", default="onnx_speed")
    args = parser.parse_args()
    threads = [int(number) for number in args.threads.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(args.model) if args.model else write_vit_s(Path(folder) / "vit_s.onnx")
        model = read(path)
        opened = model.variant.opened
        (noise,) = next(inputs.noise(opened.flow, opened.all_specs, opened.constants)).values()
        batch = noise if model.input_spec.batch else np.concatenate([noise] * args.batch)[: args.batch]
        ranges = {layer.name: layer.activation for layer in measure_activations(model, model.layers(), batch)}
        files, notes = {"float": path}, {"float": ("", "")}
        for name, widths, activation_bits, container in FILES:
            files[name] = Path(folder) / f"{len(files)}.onnx"
            plan = make_plan(model, widths, activation_bits, container, ranges)
            written = write(model, plan, files[name], batch=batch)
            notes[name] = (
                f"{written.relative_error:.1e}",
                f"{len(written.integer_layers)}/{len(model.variant.opened.sites)}",
            )
        rows = {}
        for name, file in files.items():
            loads = [load(file) for _ in range(3)]
            kernels = count_kernels(file, Path(folder))
            rows[name] = [
                f"{file.stat().st_size / 1e6:.2f}",
                *(f"{min(values):.0f}" for values in zip(*loads, strict=True)),
                *notes[name],
                kernels,
            ]
        for count in threads:
            best = run_in_turns(files, {model.input_spec.name: batch}, count, args.rounds)
            for name, milliseconds in best.items():
                rows[name].append(f"{milliseconds:.2f} ({milliseconds / best['float']:.2f})")
    columns = ("file", "MB", "load ms", "load peak MB", "error", "integer layers", "integer kernels")
    columns += tuple(f"ms per run, {count} thread{'s' * (count > 1)} (of float)" for count in threads)
    body = report.table(columns, [(name, *values) for name, values in rows.items()])
    size = sum(layer.size for layer in model.layers())
    body += (
        f"\n\n{path.name if args.model else 'Random ViT of S size'}: {size / 1e6:.1f} M weights in "
        f"{len(model.variant.opened.sites)} layers, batch of {len(batch)}, noise as input and calibration, seed 0; the "
        f"fastest of {args.rounds} rounds. Error: largest difference to the fake-quantized float model, "
        f"relative to its largest output. Load average of the machine at the end: {os.getloadavg()[0]:.1f}."
    )
    packages = ("numpy", "onnx", "onnx-ir", "onnxruntime")
    report.write(args.name, "Speed of quantized ONNX files", body, packages=packages)


def make_plan(model: OnnxModel, widths, activation_bits, container, ranges) -> Plan:
    layers = []
    for index, layer in enumerate(model.layers()):
        # An embedding that is added has no input.
        seen = ranges[layer.name]
        layers.append(
            PlanLayer.of(
                layer,
                weight_bits=widths[index % len(widths)],
                payload_bytes=0,
                activation_bits=None if seen is None else activation_bits,
                activation_range=None if seen is None else (float(seen.min[0]), float(seen.max[0])),
            )
        )
    return Plan(layers=tuple(layers), mode="uniform", budget={}, container=container, rest_bytes=0)


def load(file: Path) -> tuple[float, float]:
    """Milliseconds and additional peak megabytes of opening a session."""
    output = subprocess.run(
        [sys.executable, "-c", LOADER, str(file)], capture_output=True, text=True, check=True
    )
    milliseconds, megabytes = map(float, output.stdout.split())
    return milliseconds, megabytes


def count_kernels(file: Path, folder: Path) -> int:
    """Nodes with integer kernels that the runtime makes of a file."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return sum(
        node.op_type in INTEGER_KERNELS for node in onnx.load(options.optimized_model_filepath).graph.node
    )


def run_in_turns(
    files: dict[str, Path], feed: dict[str, np.ndarray], threads: int, rounds: int
) -> dict[str, float]:
    """Milliseconds of the fastest run of each file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait must not take the core from the session whose turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    opened = {
        n: ort.InferenceSession(str(f), options, providers=["CPUExecutionProvider"]) for n, f in files.items()
    }
    best = dict.fromkeys(files, float("inf"))
    now = time.thread_time if threads == 1 else time.perf_counter
    for _ in range(rounds):
        for name, session in opened.items():
            began = now()
            session.run(None, feed)
            best[name] = min(best[name], 1e3 * (now() - began))
    return best


def write_vit_s(path: Path, width: int = 384, depth: int = 12, heads: int = 6, patch: int = 16) -> Path:
    """A random ViT of S size as an exporter writes it, with a dynamic batch."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def tensor(name: str, array) -> str:
        tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(name: str, *shape: int, spread: float | None = None) -> str:
        spread = 1 / np.sqrt(shape[0]) if spread is None else spread
        return tensor(name, (spread * random.standard_normal(shape)).astype(np.float32))

    def op(kind: str, *inputs: str, outputs: int = 1, **attributes) -> str:
        names = [f"v{len(nodes)}_{i}" for i in range(outputs)]
        nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{len(nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def norm(value: str, name: str) -> str:
        gain, offset = (
            tensor(f"{name}.weight", np.ones(width, np.float32)),
            weight(f"{name}.bias", width, spread=0.02),
        )
        return op("LayerNormalization", value, gain, offset, axis=-1)

    def linear(value: str, name: str, rows: int, columns: int) -> str:
        product = op("MatMul", value, weight(f"{name}.weight", rows, columns))
        return op("Add", weight(f"{name}.bias", columns, spread=0.02), product)

    def split(value: str) -> str:
        return op("Transpose", op("Reshape", value, "split_shape"), perm=[0, 2, 1, 3])

    tokens = (224 // patch) ** 2
    tensor("split_shape", np.array([0, 0, heads, width // heads]))
    tensor("join_shape", np.array([0, 0, width]))
    tensor("flat_shape", np.array([0, width, tokens]))
    tensor("scale", np.float32((width // heads) ** -0.5))
    filters = weight("patch_embed.weight", width, 3, patch, patch, spread=0.03)
    value = op("Conv", "x", filters, weight("patch_embed.bias", width, spread=0.02), strides=[patch] * 2)
    value = op("Transpose", op("Reshape", value, "flat_shape"), perm=[0, 2, 1])
    value = op("Add", value, weight("pos_embed", 1, tokens, width, spread=0.02))
    for block in (f"blocks.{i}" for i in range(depth)):
        inner = norm(value, f"{block}.norm1")
        qkv = linear(inner, f"{block}.attn.qkv", width, 3 * width)
        q, k, v = (split(part) for part in op("Split", qkv, outputs=3, axis=-1, num_outputs=3))
        scores = op("Mul", op("MatMul", q, op("Transpose", k, perm=[0, 1, 3, 2])), "scale")
        mixed = op("Transpose", op("MatMul", op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        value = op(
            "Add", value, linear(op("Reshape", mixed, "join_shape"), f"{block}.attn.proj", width, width)
        )
        inner = linear(norm(value, f"{block}.norm2"), f"{block}.mlp.fc1", width, 4 * width)
        value = op("Add", value, linear(op("Gelu", inner), f"{block}.mlp.fc2", 4 * width, width))
    pooled = op("ReduceMean", norm(value, "norm"), tensor("axes", np.array([1])), keepdims=0)
    op("Gemm", pooled, weight("head.weight", width, 1000), weight("head.bias", 1000, spread=0.02))
    nodes[-1].output[0] = "logits"
    shapes = {"x": ["batch", 3, 224, 224], "logits": ["batch", 1000]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "vit_s", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


if __name__ == "__main__":
    main()
