"""Profile and quantize models of the size of a ViT-S or ViT-B: processor time beside forward and backward, memory.

    python benchmarks/vit_at_size.py --case "profile S onnx 8" --case "profile S torch 8" --case "quantize B onnx 64"

Random weights and images of 224 x 224, 50 layers, 7 widths, one thread. A case is a verb, a size, a format and a number
of images; each is measured in a process of its own. Forward + backward is a training step's work on the same images
with the PyTorch model, in batches of 8, measured on eight of them just afterwards in the same process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_speed
import report
import torch
from torch import nn
from torch_fisher import ViT, plain

import lampq
from lampq.adapters.torch import read as read_module

WIDTHS = {"S": 384, "B": 768}
DEPTH = 12
BITS = 4


def model_of(form: str, size: str, folder: Path):
    """The model of a case as lampq reads it, and the bytes of its float weights."""
    width = WIDTHS[size]
    if form == "onnx":
        path = onnx_speed.write_vit_s(folder / "vit.onnx", width=width, heads=width // 64)
        return lampq.read(path), path.stat().st_size
    module = module_of(size)
    return read_module(module, input_shape=(3, 224, 224)), sum(4 * p.numel() for p in module.parameters())


def module_of(size: str) -> nn.Module:
    """The same architecture as a PyTorch module."""
    torch.manual_seed(0)
    return ViT(WIDTHS[size], DEPTH).eval()


def training_step_s(size: str, images: np.ndarray) -> float:
    """Processor seconds of forward and backward."""
    module = module_of(size)
    plain(module, images[:1])
    began = time.process_time()
    plain(module, images)
    return time.process_time() - began


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Phases:
    """Processor seconds by what was being done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Progress of a verb."""
        now = time.process_time()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - self._last
        self._last = now
        if done == total:
            print(
                f"  {what}: {self.seconds[what]:.1f} s, peak {peak_mb():,.0f} MB", file=sys.stderr, flush=True
            )


def measured(verb: str, size: str, form: str, count: int) -> dict:
    """One case, in this process."""
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    images = np.random.default_rng(0).normal(size=(count, 3, 224, 224)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        model, size_bytes = model_of(form, size, Path(name))
        layers = len(model.layers())
        phases, began = Phases(), time.process_time()
        if verb == "profile":
            profile = lampq.profile(model, images, progress=phases)
            told = profile.provenance["measure"]
        else:
            out = Path(name) / ("out.onnx" if form == "onnx" else "out.safetensors")
            plan = lampq.quantize(model, images, out, average_bits=BITS, progress=phases)
            told = f"measured KL {plan.measured_kl:.3g}"
        seconds, peak = time.process_time() - began, peak_mb()
    few = images[: min(count, 8)]
    step = training_step_s(size, few) * count / len(few)
    return {
        "layers": layers, "bytes": size_bytes, "step_s": step, "seconds": seconds, "peak_mb": peak, "told": told,
        "phases": phases.seconds,
    }  # fmt: skip


def row(case: str) -> tuple[str, ...]:
    """A row of the table, from a process of its own."""
    run = subprocess.run(
        [sys.executable, __file__, "--only", case], stdout=subprocess.PIPE, text=True, check=True
    )
    one = json.loads(run.stdout.splitlines()[-1])
    longest = sorted(one["phases"].items(), key=lambda item: -item[1])[:4]
    return (
        case,
        f"{one['bytes'] / 1e6:,.0f}",
        f"{one['step_s']:.1f}",
        f"{one['seconds']:.1f}",
        f"{one['seconds'] / one['step_s']:.2f}",
        f"{one['peak_mb']:,.0f}",
        one["told"],
        "; ".join(f"{what} {seconds:.0f}" for what, seconds in longest),
    )


def main() -> None:
    """Measure all cases, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", default=[], metavar="'VERB SIZE FORMAT IMAGES'")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        verb, size, form, count = args.only.split()
        print(json.dumps(measured(verb, size, form, int(count))))
        return
    rows = []
    for case in args.case:
        rows.append(row(case))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    columns = (
        "verb, size, format, images", "model (MB)", "forward + backward (CPU s)", "CPU s", "ratio", "peak memory (MB)",
        "told", "longest parts (CPU s)",
    )  # fmt: skip
    report.write(
        "vit_at_size", "Models of the size of ViT-S and ViT-B", report.table(columns, rows),
        packages=("numpy", "torch", "onnxruntime"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
