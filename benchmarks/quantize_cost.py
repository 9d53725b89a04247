"""`lampq quantize` end to end against an older version: processor time, memory, and damage on images neither saw.

    python benchmarks/quantize_cost.py --onnx cifar_vit.onnx --calib DATA/calib --val DATA/val --before OLD/bin/lampq

Each run is a process of its own, one thread, versions in turn; seconds are user and system time. Files are judged by
stock ONNX Runtime. `benchmarks/export_cifar_vit.py` makes the ONNX file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cifar10
import numpy as np
import onnxruntime as ort
import report

BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a version.

    Attributes:
        seconds: User and system time.
        peak_mb: Largest resident memory.
        size_bytes: Of the file.
        kl: Damage on the validation images, nats.
        top1: Share of the validation images that come out right.
    """

    seconds: float
    peak_mb: float
    size_bytes: int
    kl: float
    top1: float


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    """Log-probabilities of a model file, float64, shape (N, classes)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: images[i : i + BATCH]})[0] for i in range(0, len(images), BATCH)]
    values = np.concatenate(parts).astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def quantized(lampq: list[str], args: argparse.Namespace, samples: int, bits: str, out: Path) -> tuple:
    """Processor seconds and peak memory of a run."""
    command = [
        *lampq, "quantize", str(Path(args.model).resolve()), "--data", str(Path(args.calib).resolve()),
        "--preset", "cifar10", "--samples", str(samples), "--avg-bits", bits, "-o", str(out), "--quiet", "--force",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    child = subprocess.Popen(command, cwd=out.parent, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def compared(args: argparse.Namespace) -> str:
    """The table."""
    setting = cifar10.read(args)
    exact = logits(Path(args.model), setting.val)
    versions = {"before": [args.before], "now": [sys.executable, "-m", "lampq.cli"]}
    rows = []
    for samples in map(int, args.samples.split(",")):
        for bits in args.budgets.split(","):
            runs: dict[str, list[Run]] = {name: [] for name in versions}
            for _ in range(args.turns):
                for name, lampq in versions.items():
                    with tempfile.TemporaryDirectory() as folder:
                        out = Path(folder) / "out.onnx"
                        seconds, peak = quantized(lampq, args, samples, bits, out)
                        own = logits(out, setting.val)
                        kl = float((np.exp(exact) * (exact - own)).sum(axis=1).mean())
                        top1 = float((own.argmax(axis=1) == setting.labels).mean())
                        size = out.stat().st_size
                    runs[name].append(Run(seconds=seconds, peak_mb=peak, size_bytes=size, kl=kl, top1=top1))
            medians = {name: statistics.median(run.seconds for run in each) for name, each in runs.items()}
            for name, each in runs.items():
                rows.append(
                    (
                        str(samples),
                        bits,
                        name,
                        f"{medians[name]:.1f}",
                        f"{medians[name] / medians['before']:.3f}",
                        f"{max(run.peak_mb for run in each):,.0f}",
                        f"{each[0].size_bytes:,}",
                        f"{100 * each[0].top1:.2f}",
                        f"{each[0].kl:.5f}",
                    )
                )
                print(*rows[-1], sep=" | ", flush=True)
    columns = (
        "images", "bits", "version", "CPU s", "of before", "peak (MB)", "file (bytes)", "val top-1 (%)", "val KL",
    )  # fmt: skip
    return (
        report.table(columns, rows)
        + f"\n\nMedians of {args.turns} turns; {len(setting.val)} images to judge by."
    )


def main() -> None:
    """Compare, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cifar10.add_arguments(parser, "--onnx")
    parser.add_argument("--before", required=True, help="`lampq` of an environment with the older version")
    parser.add_argument("--samples", default="520")
    parser.add_argument("--budgets", default="3")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    report.write(
        "quantize_cost",
        "Quantizing end to end",
        compared(args),
        packages=("numpy", "torch", "onnxruntime"),
    )


if __name__ == "__main__":
    main()
