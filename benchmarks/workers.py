"""A profile by one process and by worker processes, BLAS pinned to one thread each.

python benchmarks/workers.py MODEL DATA [--workers 2] [--flags '--samples 64']

Wall seconds depend on what else the machine does, so the load is told with them; CPU seconds of all processes together
say what sharing out adds.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import report

from lampq.core.values.profile import Profile


def measured(words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and its processes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lampq.cli", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def main() -> None:
    """Measure both, compare the profiles, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--flags", default="--samples 64")
    args = parser.parse_args()
    words = ["profile", args.model, "--data", args.data, *shlex.split(args.flags), "--quiet", "-o"]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("one.json", "shared.json")]
        loads, times = [], []
        for path, more in zip(paths, ([], ["--workers", str(args.workers)]), strict=True):
            loads.append(os.getloadavg()[0])
            times.append(measured([*words, str(path), *more]))
        one, shared = (Profile.read(path).array("kl") for path in paths)
    assert one is not None
    assert shared is not None
    worst = float(np.abs(shared - one).max() / one.max())
    rows = [
        [name, f"{wall:.1f}", f"{cpu:.1f}", f"{load:.1f}"]
        for name, (wall, cpu), load in zip(
            ("one process", f"{args.workers} workers"), times, loads, strict=True
        )
    ]
    speed, added = times[0][0] / times[1][0], times[1][1] / times[0][1] - 1
    text = (
        f"{report.table(('profile by', 'seconds', 'CPU seconds', 'load before'), rows)}\n\n"
        f"{speed:.2f} times as fast, {added:.0%} more CPU time; without waiting for others "
        f"{args.workers / (1 + added):.2f} times. Damage differs by {worst:.1e} of the largest at most."
        f"\n\n`profile {args.flags}`"
    )
    report.write("workers", "Profiles shared out among processes", text, packages=("numpy", "onnxruntime"))


if __name__ == "__main__":
    main()
