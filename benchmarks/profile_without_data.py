"""Time and peak memory of profiling a ViT-B-sized ONNX file without data (statistics and errors at 7 widths).

python benchmarks/profile_without_data.py
"""

from __future__ import annotations

import resource
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
    graph = ir.Graph(inputs, [value], nodes=nodes, initializers=initializers, opset_imports={"": 18})
    ir.save(ir.Model(graph, ir_version=9), path)


def main() -> None:
    """Generate the file, profile it in a process of its own, report."""
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "vit_b.onnx", Path(folder) / "profile.json"
        write_vit_b(model)
        size = model.stat().st_size
        began = time.perf_counter()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "lampq.cli",
                "profile",
                str(model),
                "--no-data",
                "--quiet",
                "-o",
                str(out),
            ],
            check=True,
        )
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    rows = [(f"{size / 1e6:.0f}", f"{seconds:.1f}", f"{peak / 1e6:.0f}", f"{(peak - size) / 1e6:.0f}")]
    columns = ("file (MB)", "seconds", "peak memory (MB)", "above the file's size (MB)")
    report.write(
        "profile_without_data", "Profile of a ViT-B-sized file without data", report.table(columns, rows)
    )


if __name__ == "__main__":
    main()
