"""Rounding to inputs: CPU time, output error and memory, against an older version in the same run.

    python benchmarks/rounding_speed.py --onnx cifar_vit.onnx --calib DATA/calib --before OLD/.venv/bin/python

All seven widths of every layer of the model, and of two made-up layers of a ViT-S whose inputs have a mean and
eigenvalues that fall as 1 / i, about as those of the model do. The versions take turns, each run a process of its own;
the least CPU time of a layer counts. `benchmarks/export_cifar_vit.py` makes the ONNX file.
"""

from __future__ import annotations

import argparse
import inspect
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

WIDTHS = range(2, 9)
TURNS = 3
# The one that takes most memory last.
VIT_S = {"ViT-S fc1, 1536 x 384": (1536, 384), "ViT-S fc2, 384 x 1536": (384, 1536)}


def made_up(channels: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the second moment of their inputs."""
    rng = np.random.default_rng(columns)
    spectrum = np.arange(1, columns + 1) ** -0.5
    basis = np.linalg.qr(rng.normal(size=(columns, columns)))[0]
    inputs = (rng.normal(size=(4 * columns, columns)) * spectrum) @ basis + 0.1 * rng.normal(size=columns)
    weight = 0.02 * rng.normal(size=(channels, columns))
    return weight.astype(np.float32), (inputs.T @ inputs / len(inputs)).astype(np.float32)


def work(layers: Path, out: Path) -> None:
    """Round all layers in a file with the version at hand; write values, CPU seconds and peak memory."""
    try:
        from lampq.core.quantizing.quantizer import quantize
        from lampq.core.quantizing.rounding import InputRounding
    except ImportError:
        from lampq.core.quantizer import quantize
        from lampq.core.rounding import InputRounding

    stored = np.load(layers)
    together = "widths" in inspect.signature(InputRounding.quantize).parameters
    for bits in WIDTHS:
        # What is looked up once a process is no part of a layer.
        quantize(np.eye(4, dtype=np.float32), bits)
    found = {}
    for index in range(len(stored) // 2):
        rows, moment = stored[f"rows{index}"], stored[f"moment{index}"]
        began = time.process_time()
        rounding = InputRounding(moment)
        if together:
            results = rounding.quantize(rows, WIDTHS)
        else:
            results = [rounding.quantize(rows, bits) for bits in WIDTHS]
        found[f"seconds{index}"] = time.process_time() - began
        difference = [result.dequantized().astype(np.float64) - rows for result in results]
        exact = moment.astype(np.float64)
        found[f"error{index}"] = [float(np.einsum("ij,ij->", each @ exact, each)) for each in difference]
    found["peak"] = peak_bytes(lambda: InputRounding(moment).quantize(rows, WIDTHS if together else 4))
    np.savez(out, **found)


def peak_bytes(action: Callable[[], object]) -> int:
    """The most memory of arrays that an action has at once; what LAPACK allocates for itself is not seen."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def floor_seconds(rows: np.ndarray, flops_per_second: float) -> float:
    """What one factor and the products that no pass can do without would take at the speed of a large product."""
    channels, columns = rows.shape
    lanes = channels * len(WIDTHS)
    return (columns**3 / 3 + 2 * lanes * columns**2) / flops_per_second


def product_speed() -> float:
    """Floating-point operations a second of CPU in a large float32 product."""
    size = 1536
    factor = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    began = time.process_time()
    for _ in range(5):
        factor @ factor
    return 5 * 2 * size**3 / (time.process_time() - began)


def compare(args: argparse.Namespace) -> str:
    """Tables of both versions."""
    import cifar10
    import report

    from lampq.core.measuring.moments import input_moments
    from lampq.core.quantizing.quantizer import as_rows

    args.val = args.calib
    setting = cifar10.read(args)
    model = setting.model
    moments = input_moments(model, model.layers(), setting.calib)
    pairs = [(as_rows(model.weight(x.name), x.channel_axis), moments[x.name]) for x in model.layers()]
    pairs += [made_up(*shape) for shape in VIT_S.values()]
    versions = {"before": args.before, "now": sys.executable}
    runs: dict[str, list] = {name: [] for name in versions}
    with tempfile.TemporaryDirectory() as folder:
        layers = Path(folder) / "layers.npz"
        np.savez(
            layers,
            **{f"rows{i}": r for i, (r, _) in enumerate(pairs)},
            **{f"moment{i}": m for i, (_, m) in enumerate(pairs)},
        )
        for turn in range(TURNS):
            for name, python in versions.items():
                out = Path(folder) / f"{name}{turn}.npz"
                subprocess.run([python, __file__, "--work", layers, out], check=True)
                with np.load(out) as stored:
                    runs[name].append(dict(stored))
    seconds = {
        name: np.array([min(float(run[f"seconds{i}"]) for run in each) for i in range(len(pairs))])
        for name, each in runs.items()
    }
    errors = {
        name: np.array([each[0][f"error{i}"] for i in range(len(pairs))]) for name, each in runs.items()
    }
    share, speed = errors["now"] / errors["before"], product_speed()
    groups = {f"CIFAR-10 ViT, {len(pairs) - 2} layers": slice(0, len(pairs) - 2)}
    groups |= {name: slice(len(pairs) - 2 + k, len(pairs) - 1 + k) for k, name in enumerate(VIT_S)}
    rows = []
    for name, part in groups.items():
        old, new = seconds["before"][part].sum(), seconds["now"][part].sum()
        least = sum(floor_seconds(rows, speed) for rows, _ in pairs[part])
        rows.append(
            (
                name,
                f"{old:.2f}",
                f"{new:.2f}",
                f"{old / new:.1f}",
                f"{least:.2f}",
                f"{share[part].mean():.4f}",
                f"{share[part].max():.4f}",
            )
        )
    columns = (
        "layers",
        "CPU before (s)",
        "CPU now (s)",
        "times less",
        "products alone (s)",
        "error, mean",
        "error, worst",
    )
    peaks = {name: min(float(run["peak"]) / 2**20 for run in each) for name, each in runs.items()}
    return (
        report.table(columns, rows)
        + "\n\nError: that of the output, ||(W_hat - W) X||^2 on the calibration inputs, over that before; mean and "
        "worst over layers and widths. Products alone: one factor of the moment, the pass and the slope after it, at "
        f"the {speed / 1e9:.0f} GFLOP/s of a large float32 product.\n\n"
        f"By width ({', '.join(map(str, WIDTHS))} bits), mean over all layers: "
        f"{', '.join(f'{x:.3f}' for x in share.mean(axis=0))}.\n\n"
        f"Arrays at once in the last layer, its results among them: {peaks['before']:.0f} MiB before (one width at a "
        f"time), {peaks['now']:.0f} MiB now (all). "
        f"Threads of BLAS: {os.environ.get('OMP_NUM_THREADS', 'all')}; all seven widths; least of {TURNS} turns."
    )


def main() -> None:
    """One side of the comparison, or all of it."""
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    import report

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--onnx", dest="model", required=True)
    parser.add_argument("--calib", required=True)
    parser.add_argument("--before", required=True, help="Python of an environment with the older version")
    args = parser.parse_args()
    report.write("rounding_speed", "Rounding to inputs", compare(args))


if __name__ == "__main__":
    main()
