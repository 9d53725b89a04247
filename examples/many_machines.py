"""Profiling on many machines: each measures its share of the images, and the parts make the same profile as one.

Two processes stand for two machines. Needs lampq[onnx]. Writes into the current folder:
python examples/many_machines.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import lampq
from lampq.demo_data import CALIBRATION_PATH, MODEL_PATH

SHARES = 2


def main() -> None:
    common = [
        "profile",
        str(MODEL_PATH),
        "--data",
        str(CALIBRATION_PATH),
        "--samples",
        "64",
        "--bits",
        "2,4,8",
    ]
    common += ["--fisher-draws", "0", "--quiet", "--force"]
    parts = [Path(f"part-{share}.json") for share in range(1, SHARES + 1)]
    running = []
    for share, path in enumerate(parts, start=1):
        command = [
            sys.executable,
            "-m",
            "lampq.cli",
            *common,
            "--shard",
            f"{share}/{SHARES}",
            "-o",
            str(path),
        ]
        running.append(subprocess.Popen(command))
    if any(process.wait() for process in running):
        raise SystemExit("a machine failed; its message is above")

    merged = lampq.merge([lampq.Profile.read(path) for path in parts])
    merged.write(Path("profile.json"), force=True)

    subprocess.run([sys.executable, "-m", "lampq.cli", *common, "-o", "whole.json"], check=True)
    whole = lampq.Profile.read(Path("whole.json"))
    difference = float(np.abs(merged.kl - whole.kl).max() / whole.kl.max())
    print(
        f"{merged.samples} samples in {SHARES} parts, damage within {difference:.1e} of that on one machine"
    )
    same = lampq.plan(merged, average_bits=3).widths == lampq.plan(whole, average_bits=3).widths
    print("the plans are the same" if same else "the plans differ")


if __name__ == "__main__":
    main()
