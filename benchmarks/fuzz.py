"""Thousands of damaged files: none may crash, hang, eat memory, or fail with anything but a message of one
line.

    python benchmarks/fuzz.py [--each 2000] [--seed 0] [--name fuzz] [KIND=FILE | GROUP ...]

KIND is tflite, tflite-run (which also runs what can be read), onnx, plan, profile, onnx-stored or tflite-stored (files
that are quantized already), or config-TOOL (a configuration TOOL.json of another tool, beside TOOL.reference.*). GROUP
is models, records (plan and profile), quantized or configurations: files made by tests/fuzz_sources.py. Without either
it is all four. A file fails when reading it ends the process, takes more than 5 seconds of processor
time or 1 GB of memory, or raises anything but an error of lampq.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import fuzz_sources
from fuzzing import judge

GROUPS: dict[str, Callable[[Path], list[tuple[str, Path]]]] = {
    "models": lambda folder: fuzz_sources.models(),
    "records": fuzz_sources.records,
    "quantized": fuzz_sources.quantized,
    "configurations": fuzz_sources.configurations,
}


def sources(names: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Kinds and files that arguments name; what is made goes to `folder`."""
    for name in names:
        kind, equals, path = name.partition("=")
        if equals:
            yield kind, Path(path)
        else:
            yield from GROUPS[name](folder)


def main() -> int:
    """Judge all, write the table, fail if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", metavar="KIND=FILE", default=list(GROUPS))
    parser.add_argument("--each", type=int, default=2000, help="damaged copies of every file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="fuzz")
    args = parser.parse_args()
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as made:
        for kind, path in sources(args.sources, Path(made)):
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                counts, failures, slowest, peak = judge(kind, path, folder, args.each, args.seed)
            failed += len(failures)
            rows.append(
                (
                    kind,
                    path.name,
                    args.each,
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
    body = (
        report.table(columns, rows) + f"\n\nSeeds {args.seed} to {args.seed + args.each - 1} for each file."
    )
    report.write(args.name, "Damaged files", body, packages=("numpy",))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
