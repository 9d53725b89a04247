"""Time of the solvers on allocation problems: built in, HiGHS, CBC; two budgets, curves, a million layers.

    python benchmarks/solvers.py [--rounds 5]

Every figure is the median CPU time of `lampq.solvers.solve`, reduction and certification included, over rounds
and seeds; all solvers run in turns in one process and their answers are compared.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import report

from lampq.core.allocating.pareto import pareto
from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution
from lampq.solvers import SOLVERS, solve

BITS = np.arange(2, 9)
SEEDS = (0, 1, 2)
# The built-in solver's advantage is claimed against both.
BAR = 5


def sizes(layers: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Weights per layer: the four of a ViT-S block in turn, or random ones without a common divisor."""
    if kind == "ViT":
        return np.array([3, 1, 4, 4])[np.arange(layers) % 4] * 384 * 384
    return rng.integers(1000, 3_000_000, layers)


def problem(layers: int, kind: str, seed: int, *, budgets: int = 1, bits: float = 3.0) -> Problem:
    """Seven widths; damage falls fourfold per bit from a log-normal start. A second budget weighs layers."""
    rng = np.random.default_rng(seed)
    size = sizes(layers, kind, rng)
    damage = rng.lognormal(0, 1.5, layers)[:, None] * 4.0**-BITS * rng.lognormal(0, 0.1, (layers, len(BITS)))
    use = [size[:, None] * BITS]
    limits = [int(size.sum() * bits)]
    if budgets == 2:
        use.append((use[0] * np.exp(rng.normal(0, 0.5, layers))[:, None]).astype(np.int64))
        low, high = use[1].min(axis=1).sum(), use[1].max(axis=1).sum()
        limits.append(int(low + (bits - 2) / 6 * (high - low)))
    return Problem.build(damage, np.stack(use), limits)


def timed(run: Callable[[], Solution]) -> tuple[float, Solution]:
    """Milliseconds of CPU and answer."""
    began = time.process_time()
    answer = run()
    return 1e3 * (time.process_time() - began), answer


def compare(layers: int, kind: str, rounds: int, budgets: int = 1) -> list[str]:
    """A row of the table: median milliseconds per solver, and how they compare."""
    times: dict[str, list[float]] = {name: [] for name in SOLVERS}
    unproven = dict.fromkeys(SOLVERS, 0)
    for seed in SEEDS:
        case = problem(layers, kind, seed, budgets=budgets)
        best = np.inf
        for turn in range(rounds):
            for name in SOLVERS:
                # Seconds-long runs need no repetition.
                if turn and times[name][-1] > 1000:
                    continue
                milliseconds, answer = timed(partial(solve, case, solver=name, time_limit_s=600))
                times[name].append(milliseconds)
                unproven[name] += turn == 0 and answer.gap > 1e-6
                if answer.gap <= 1e-6 and best < np.inf and abs(answer.objective - best) > 1e-9 * best:
                    raise SystemExit(f"{name} disagrees: {answer.objective} and {best}")
                best = min(best, answer.objective)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = [median[name] / median["exact"] for name in ("scipy", "cbc")]
    if budgets == 1 and min(ratios) < BAR:
        print(f"below the bar: {layers} layers, {kind}", file=sys.stderr)
    cells = [
        f"{median[name]:.1f}" + (f" ({unproven[name]} unproven)" if unproven[name] else "")
        for name in SOLVERS
    ]
    return [
        str(layers),
        kind,
        *cells,
        *(f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x" for ratio in ratios),
    ]


def curve(layers: int, kind: str, rounds: int) -> list[str]:
    """A row of the table: time and points of the whole curve."""
    case = problem(layers, kind, 0)
    free = Problem.build(case.cost * case.scale, case.resources, None)
    times = []
    for _ in range(rounds):
        began = time.process_time()
        found = pareto(free)
        choices = found.choices
        times.append(1e3 * (time.process_time() - began))
    whole = "all" if found.complete else "hull"
    return [str(layers), kind, f"{statistics.median(times):.1f}", f"{len(choices)}", whole]


def million(kind: str) -> None:
    """Solve a million layers and print a row; in a process of its own, so that the peak memory is its own."""
    case = problem(1_000_000, kind, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    milliseconds, answer = timed(partial(solve, case))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = f"{before / 1024:.0f}|{peak / 1024:.0f}"
    print(f"{kind}|{milliseconds / 1e3:.2f}|{answer.gap:.1e}|{answer.status.value}|{memory}")


def main() -> None:
    """Run everything and write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--million", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.million:
        million(args.million)
        return
    solve(problem(10, "ViT", 0), solver="scipy")
    solve(problem(10, "ViT", 0), solver="cbc")
    kinds = ("ViT", "random")
    one = [compare(layers, kind, args.rounds) for layers in (50, 500, 5000) for kind in kinds]
    two = [compare(layers, kind, args.rounds, budgets=2) for layers in (20, 50, 200) for kind in kinds]
    curves = [
        curve(layers, kind, args.rounds) for layers, kind in ((50, "ViT"), (50, "random"), (500, "ViT"))
    ]
    millions = []
    for kind in kinds:
        run = [sys.executable, __file__, "--million", kind]
        said = subprocess.run(run, capture_output=True, text=True, check=True)
        millions.append(said.stdout.strip().split("|"))
    columns = (
        "layers",
        "sizes",
        "built in (ms)",
        "HiGHS (ms)",
        "CBC (ms)",
        "HiGHS / built in",
        "CBC / built in",
    )
    body = "\n\n".join(
        [
            "One budget of 3 bits on average, 7 widths:",
            report.table(columns, one),
            "Two budgets, bits and bit-operations (no other package is needed for the built-in solver):",
            report.table(columns, two),
            "The whole size/damage curve with the choices of every point:",
            report.table(("layers", "sizes", "ms", "points", "which"), curves),
            "A million layers, 7 widths:",
            report.table(("sizes", "seconds", "gap", "status", "MB before", "MB peak"), millions),
            f"Seeds {', '.join(map(str, SEEDS))}; at most {args.rounds} rounds of each, one thread. "
            "Times are CPU times: other work on the machine hardly shows.",
        ]
    )
    report.write("solvers", "Solvers", body, packages=("numpy", "scipy", "mip"))


if __name__ == "__main__":
    main()
