"""How the cost of a profile grows with layers, widths and images: one of them changed at a time.

    python benchmarks/profile_growth.py

Random ViTs of 192 channels as ONNX, images of 224 x 224, one thread. Every row is measured in a process of its own. The
parts are what progress tells, each with what leads up to it: reading, moments of the inputs and the float outputs are
with the check, the codes of all widths with the gradients.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_speed
import report
from vit_at_size import Phases

import lampq

WIDTH, HEADS = 192, 3
# Blocks, largest width of 2 to N bits, images.
USUAL = (6, 8, 16)
CASES = [
    *((blocks, *USUAL[1:]) for blocks in (3, 6, 12)),
    *((USUAL[0], bits, USUAL[2]) for bits in (3, 5)),
    *((*USUAL[:2], images) for images in (8, 32)),
]
PARTS = ("checking gradients", "gradients", "Fisher information")


def measured(blocks: int, bits: int, images: int) -> dict:
    """Processor seconds of one profile, in this process."""
    batch = np.random.default_rng(0).normal(size=(images, 3, 224, 224)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_speed.write_vit_s(Path(folder) / "vit.onnx", width=WIDTH, depth=blocks, heads=HEADS)
        began, phases = time.process_time(), Phases()
        profile = lampq.profile(lampq.read(path), batch, bits=tuple(range(2, bits + 1)), progress=phases)
        seconds = time.process_time() - began
    return {"layers": len(profile.layers), "seconds": seconds, "phases": phases.seconds}


def row(blocks: int, bits: int, images: int) -> tuple[str, ...]:
    """A row of the table, from a process of its own."""
    words = [sys.executable, __file__, "--only", f"{blocks} {bits} {images}"]
    one = json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
    parts = [one["phases"].get(part, 0.0) for part in PARTS]
    seconds = [one["seconds"], *parts, one["seconds"] - sum(parts)]
    return (str(one["layers"]), str(bits - 1), str(images), *(f"{value:.1f}" for value in seconds))


def main() -> None:
    """Measure all cases, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measured(*map(int, args.only.split()))))
        return
    rows = []
    for case in CASES:
        rows.append(row(*case))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    columns = ("layers", "widths", "images", "profile (CPU s)", *PARTS, "rest")
    report.write(
        "profile_growth", "The cost of a profile by layers, widths and images", report.table(columns, rows),
        packages=("numpy", "torch", "onnxruntime"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
