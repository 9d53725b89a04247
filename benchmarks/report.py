"""A result file says where its figures come from: commit, machine, versions, command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def write(name: str, title: str, body: str, *, packages: Sequence[str] = ("numpy",)) -> Path:
    """Write `results/<name>.md` with its provenance and show it.

    Args:
        name: File name without suffix.
        title: Heading.
        body: Markdown, usually tables.
        packages: Distributions whose versions matter.
    """
    path = RESULTS / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    text = f"# {title}\n\n{body.strip()}\n\n{provenance(packages)}\n"
    path.write_text(text, encoding="utf-8")
    print(text)
    return path


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def provenance(packages: Sequence[str]) -> str:
    """Commit, machine, versions and command as a Markdown list."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    command = " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *(_anonymous(word) for word in sys.argv[1:])])
    return "\n".join(
        [
            f"- commit: {_commit()}",
            f"- machine: {_processor()}, {os.cpu_count()} cores, {platform.system()}",
            f"- versions: Python {platform.python_version()}, {versions}",
            f"- command: `python {command}`",
        ]
    )


def _anonymous(word: str) -> str:
    """A path argument without the folders above it, which say nothing to anyone else."""
    return Path(word).name if "/" in word else word


def _commit() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS.parent, capture_output=True, text=True
    )
    return run.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
