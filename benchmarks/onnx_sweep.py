"""Cost of reading an ONNX model and of sweeping it layer by layer, as ratios to full runs of the file.

    python benchmarks/onnx_sweep.py [MODEL ...] [--samples 16] [--options 3] [--rounds 3] [--name onnx_sweep]

Without a model, a random one of ViT-S size is made. One thread, processor time, everything in turns in one
process, the fastest round of each: what else the machine does troubles all alike. Reading is measured in a
fresh process: `read`, the records of all layers, and the peak of its memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnx_speed
import report

from lampq.adapters.onnx.backend import OnnxBackend, OnnxModel
from lampq.adapters.onnx.reader import read

READER = """
import re, sys, time
import lampq.adapters.onnx.reader as reader
def memory(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, began = memory("VmRSS"), time.process_time()
reader.read(sys.argv[1], threads=1).layers()
print(time.process_time() - began, memory("VmHWM") - before)
"""
COLUMNS = (
    "model",
    "MB",
    "read, s",
    "peak, MB",
    "layers",
    "segments",
    "full run, s",
    "all weights replaced / full",
    "sweep / (candidates x full)",
)


def main() -> None:
    """Measure every model, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--options", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="onnx_sweep")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(m) for m in args.models] or [onnx_speed.write_vit_s(Path(folder) / "vit_s.onnx")]
        rows = [measure(path, args.samples, args.options, args.rounds) for path in paths]
    body = (
        f"{args.samples} samples, {args.options} candidates per layer, one thread, processor time, seed 0. "
        "Memory is what reading adds to a process that has imported everything.\n\n"
        + report.table(COLUMNS, rows)
    )
    packages = ("numpy", "onnx", "onnx-ir", "onnxruntime")
    report.write(args.name, "Reading and sweeping ONNX models", body, packages=packages)


def measure(path: Path, samples: int, options: int, rounds: int) -> list[str]:
    """One row of the table."""
    command = [sys.executable, "-c", READER, str(path)]
    seconds, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    model = read(path, threads=1)
    shape = (samples, *(d or 224 for d in model.input_spec.shape[1:]))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weights = {layer.name: model.weight(layer.name) for layer in model.layers()}
    candidates = [(name, option, array) for name, array in weights.items() for option in range(options)]
    replaced = model.with_weights(weights)
    work: dict[str, Callable[[], object]] = {
        "full": lambda: model.run(x),
        "replaced": lambda: replaced.run(x),
        "sweep": lambda: [None for _ in model.sweep(x, candidates)],
    }
    fastest = dict.fromkeys(work, float("inf"))
    # The first round opens the sessions.
    for turn in range(rounds + 1):
        for name, run in work.items():
            began = time.process_time()
            run()
            if turn:
                fastest[name] = min(fastest[name], time.process_time() - began)
    full = fastest["full"]
    return [
        path.stem,
        f"{path.stat().st_size / 1e6:.1f}",
        f"{float(seconds):.2f}",
        f"{float(peak):.0f}",
        str(len(weights)),
        str(segments(model)),
        f"{full:.3f}",
        f"{fastest['replaced'] / full:.2f}",
        f"{fastest['sweep'] / full / len(candidates):.2f}",
    ]


def segments(model: OnnxModel) -> int:
    """Segments that the sweep runs."""
    return len(cast(OnnxBackend, model.backend).engine.chain)


if __name__ == "__main__":
    main()
