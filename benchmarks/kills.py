"""`lampq quantize` killed at random moments: what the resumed runs write, and how much work they repeat.

python benchmarks/kills.py MODEL DATA [--kills 30] [--flags '--bits 2-4 --samples 64'] [--seed 0]

An uninterrupted run is timed first. Then the same command is killed (SIGKILL) after a random part of that time, gone on
with, killed again, and so on until it ends; that is a chain, and chains are begun until there were enough kills. Every
chain must end with the bytes of the uninterrupted run. Work is CPU time of the processes, killed ones included; what a
kill costs is what a chain took beyond one uninterrupted run, divided by its kills: starting again and repeated work.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime  # noqa: F401
import report

import lampq.adapters.onnx.reader  # noqa: F401
from lampq.cli import main as main_of_lampq
from lampq.console.arguments import build_parser
from lampq.core.values import journal_file


def run(words: list[str], kill_after_s: float | None = None) -> tuple[int, float, float, str]:
    """Exit status, CPU and wall seconds and what was said, of a run that is killed after so many CPU seconds."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        # A fork of this process, which has everything imported: the work is killed, hardly ever an import.
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(said.fileno(), 2)
            os._exit(main_of_lampq(words))
        while kill_after_s is not None and cpu_s(pid) < kill_after_s:
            time.sleep(0.02)
        if kill_after_s is not None:
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        said.seek(0)
        seconds = time.perf_counter() - began
        return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, seconds, said.read()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has taken; infinite when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    if fields[0] == "Z":
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def written(folder: Path) -> dict[str, bytes]:
    """Files of the quantized model."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".state")}


def main() -> None:
    """Kill, go on, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--flags", default="--avg-bits 3 --samples 64 --bits 2-4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds of finished work that may be lost")
    args = parser.parse_args()
    build_parser()
    journal_file._EVERY_S = args.every
    chance = random.Random(args.seed)
    words = ["quantize", str(args.model), "--data", str(args.data), *shlex.split(args.flags), "--quiet", "-o"]
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        status, cpu, wall, said = run([*words, str(whole / "q.onnx")])
        if status:
            raise SystemExit(said)
        expected, chains, kills = written(whole), [], 0
        largest = 0
        while kills < args.kills:
            folder = Path(name) / f"chain-{len(chains)}"
            folder.mkdir()
            total, killed, status = 0.0, 0, -9
            while status == -9:
                limit = chance.uniform(0.05, 0.6) * cpu if kills < args.kills else None
                status, spent, _, said = run([*words, str(folder / "q.onnx")], limit)
                total, killed, kills = total + spent, killed + (status == -9), kills + (status == -9)
                largest = max(largest, *(path.stat().st_size for path in folder.glob("*.state")), 0)
                print(
                    f"chain {len(chains)}: status {status}, {spent:.1f} s of CPU", file=sys.stderr, flush=True
                )
            same = status == 0 and written(folder) == expected
            state = any(path.name.endswith(".state") for path in folder.iterdir())
            chains.append((killed, total, same, state, said))
    rows = [
        [
            str(number),
            str(killed),
            f"{total:.1f}",
            f"{(total - cpu) / killed:.1f}" if killed else "",
            str(same),
            str(state),
        ]
        for number, (killed, total, same, state, _) in enumerate(chains)
    ]
    columns = (
        "chain",
        "kills",
        "CPU in all (s)",
        "CPU beyond one run, per kill (s)",
        "same bytes",
        "state left",
    )
    text = (
        f"`quantize {args.flags}` uninterrupted: {cpu:.1f} s of CPU, {wall:.1f} s. {kills} kills; the state reached "
        f"{largest / 1e6:.1f} MB.\n\n{report.table(columns, rows)}"
    )
    report.write("kills", "Quantizing, killed at random", text, packages=("numpy", "onnxruntime", "torch"))
    if not all(same and not state for _, _, same, state, _ in chains):
        raise SystemExit("a chain did not end as the uninterrupted run did")


if __name__ == "__main__":
    main()
