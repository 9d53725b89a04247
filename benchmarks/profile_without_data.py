"""Time and peak memory of profiling a ViT-B-sized ONNX file without data (statistics and errors at 7 widths).

python benchmarks/profile_without_data.py
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import report

WIDTH, DEPTH = 768, 12


def write_vit_b(path: Path) -> None:
    """The matrices of a ViT-B/16 in a chain of MatMul nodes, random values, one file without external data."""
    rng = np.random.default_rng(0)
    shapes = [(f"blocks.{i}.{name}", shape) for i in range(DEPTH) for name, shape in (
        ("attn.qkv", (WIDTH, 3 * WIDTH)), ("attn.proj", (3 * WIDTH, WIDTH)),
        ("mlp.fc1", (WIDTH, 4 * WIDTH)), ("mlp.fc2", (4 * WIDTH, WIDTH)),
    )]  # fmt: skip
    shapes.append(("head", (WIDTH, 1000)))
    value = ir.Value(name="x", shape=ir.Shape([None, WIDTH]), type=ir.TensorType(ir.DataType.FLOAT))
    inputs, nodes, initializers = [value], [], []
    for name, shape in shapes:
        array = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
        weight = ir.Value(
            name=f"{name}.weight",
            const_value=ir.tensor(array),
            shape=ir.Shape(shape),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        initializers.append(weight)
        node = ir.node("MatMul", [value, weight], name=name)
        nodes.append(node)
        value = node.outputs[0]
    value.name, value.shape, value.type = "logits", ir.Shape([None, 1000]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        inputs, [value], nodes=nodes, initializers=initializers, opset_imports={"": 18}, name="vit_b"
    )
    ir.save(ir.Model(graph, ir_version=9), path)


def main() -> None:
    """Generate the file, profile it in a process of its own, report."""
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "vit_b.onnx", Path(folder) / "profile.json"
        # A process of its own: a child starts with the memory of its parent on the books.
        writer = multiprocessing.get_context("spawn").Process(target=write_vit_b, args=(model,))
        writer.start()
        writer.join()
        size = model.stat().st_size
        command = [
            sys.executable,
            "-m",
            "lampq.cli",
            "profile",
            str(model),
            "--no-data",
            "--quiet",
            "-o",
            str(out),
        ]
        began = time.perf_counter()
        _, status, usage = os.wait4(subprocess.Popen(command).pid, 0)
        seconds = time.perf_counter() - began
        if status:
            raise SystemExit("lampq profile failed")
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    row = [f"{value:.1f}" for value in (size / 1e6, seconds, cpu, peak / 1e6, (peak - size) / 1e6)]
    columns = ("file (MB)", "seconds", "CPU seconds", "peak memory (MB)", "peak less the file's size (MB)")
    report.write(
        "profile_without_data", "Profile of a ViT-B-sized file without data", report.table(columns, [row])
    )


if __name__ == "__main__":
    main()
