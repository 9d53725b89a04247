"""Thousands of damaged files: none may crash, hang, eat memory, or fail with anything but a message of one
line.

    python benchmarks/fuzz.py --count 10000 [--seed 0] [--name fuzz] KIND=FILE ...

KIND is tflite, tflite-run (which also runs what can be read), onnx, plan or profile. The count is spread
evenly over the files. A file fails when reading it ends the process, takes more than 5 seconds of processor
time or 1 GB of memory, or raises anything but an error of lampq.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fuzzing import judge


def main() -> int:
    """Judge all, write the table, fail if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", metavar="KIND=FILE")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="fuzz")
    args = parser.parse_args()
    rows, failed = [], 0
    share = -(-args.count // len(args.sources))
    for source in args.sources:
        kind, _, path = source.partition("=")
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            counts, failures, slowest, peak = judge(kind, Path(path), folder, share, args.seed)
        failed += len(failures)
        rows.append(
            (
                kind,
                Path(path).name,
                share,
                counts["read"],
                counts["refused"],
                len(failures),
                f"{slowest:.2f}",
                f"{peak / 1e6:.0f}",
                f"{time.perf_counter() - began:.0f}",
            )
        )
        print(rows[-1], flush=True)
        for number, what in failures[:20]:
            print(f"  seed {number}: {what[:300]}", flush=True)
    columns = (
        *(
            "kind",
            "file",
            "damaged copies",
            "read",
            "refused",
            "failed",
            "slowest (CPU s)",
            "memory growth (MB)",
        ),
        "seconds",
    )
    body = report.table(columns, rows) + f"\n\nSeeds {args.seed} to {args.seed + share - 1} for each file."
    report.write(args.name, "Damaged files", body, packages=("numpy",))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
