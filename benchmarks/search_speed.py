"""Search with interactions: seconds, memory, distance from the optimum and from the certified bound.

    python benchmarks/search_speed.py [--rounds 5]

The logit differences are made up: every layer has its own direction and a share in eight common ones, so that pairs
of layers matter, and both halve with every bit, plus noise that halves too. Budgets are 3 bits on average.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import report

from lampq.core.measuring.interaction import Interaction, InteractionBuilder
from lampq.core.readouts.readout import Readout
from lampq.core.searching.relaxation import lower_bound
from lampq.core.searching.search import search
from lampq.core.values.batch import Batch
from lampq.core.values.head import CLASSES, Head
from lampq.core.values.problem import Problem
from lampq.solvers import solve

BITS = np.arange(2, 9)
SEEDS = (0, 1, 2)
Result = TypeVar("Result")


def differences(
    layers: int, options: int, samples: int, classes: int, seed: int
) -> tuple[Batch, Iterator[tuple[int, int, Batch]]]:
    """Float logits, and the differences one by one."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(samples, classes), scale=2.5).astype(np.float32)
    common = rng.normal(size=(8, samples, classes)).astype(np.float32)

    def one_by_one() -> Iterator[tuple[int, int, Batch]]:
        for layer in range(layers):
            share = rng.normal(size=8, scale=0.3).astype(np.float32)
            base = np.tensordot(share, common, 1) + 0.6 * rng.normal(size=logits.shape).astype(np.float32)
            size = 0.1 * np.exp(rng.normal())
            for option in range(options):
                noise = rng.normal(size=logits.shape).astype(np.float32)
                difference = np.float32(size * 0.5**option) * (base + 0.8 * noise)
                yield layer, option, Batch.of(difference, name="logits")

    return Batch.of(logits, name="logits"), one_by_one()


def builder_of(logits: Batch, layers: int, options: int) -> InteractionBuilder:
    """A builder of classes."""
    readout = Readout.fit((Head(name="logits", role=CLASSES),), logits, None)
    return InteractionBuilder(readout, logits, layers=layers, options=options)


def problem_of(interaction: Interaction, seed: int, bits: np.ndarray = BITS, average: float = 3.0) -> Problem:
    """Layers of ordinary sizes under an average width."""
    layers = len(interaction.linear)
    size = np.random.default_rng(seed).choice([1280, 16384, 32768, 49152, 65536], layers)
    return Problem.build(interaction.own, size[:, None] * bits, int(average * size.sum()))


def timed(action: Callable[[], Result]) -> tuple[Result, float]:
    """What an action gives, and its seconds."""
    began = time.perf_counter()
    result = action()
    return result, time.perf_counter() - began


def large(layers: int, classes: int, seed: int) -> None:
    """One problem in a process of its own, so that its peak memory is its own; prints a line of the table."""
    logits, stream = differences(layers, 7, 256, classes, seed)
    builder = builder_of(logits, layers, 7)
    building = 0.0
    for layer, option, difference in stream:
        building += timed(lambda i=layer, j=option, d=difference: builder.add(i, j, d))[1]
    interaction, last = timed(builder.build)
    problem = problem_of(interaction, seed)
    start = solve(problem).choice
    found, searching = timed(lambda: search(interaction, problem, [start]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    long = search(interaction, problem, [start], seed=1, patience=5 * (100 + 4 * layers))
    bound = lower_bound(interaction, problem, found.choices[0], time_limit_s=60)
    best = min(found.objectives[0], long.objectives[0])
    print(
        seed,
        f"{building + last:.2f}",
        f"{searching:.2f}",
        f"{peak:.0f}",
        f"{100 * interaction.error:.1f}",
        f"{100 * (1 - found.objectives[0] / float(interaction.predict(start))):.1f}",
        f"{100 * (found.objectives[0] / best - 1):.2f}",
        f"{100 * (1 - bound.value / found.objectives[0]):.1f}",
        f"{bound.seconds:.1f}",
        sep=";",
    )


def exhausted(layers: int, options: int, seeds: int) -> tuple[str, ...]:
    """How often the search finds the optimum of problems small enough to try every plan."""
    plans = np.array(list(itertools.product(range(options), repeat=layers)), dtype=np.int8)
    hits, excess, gaps = 0, [], []
    for seed in range(seeds):
        logits, stream = differences(layers, options, 64, 10, seed)
        builder = builder_of(logits, layers, options)
        for layer, option, difference in stream:
            builder.add(layer, option, difference)
        interaction = builder.build()
        problem = problem_of(interaction, seed, BITS[:options])
        use = sum(problem.resources[0, i, plans[:, i]] for i in range(layers))
        fitting = plans[use <= problem.limits[0]]
        parts = np.array_split(fitting, 1 + len(fitting) // 20_000)
        best = min(float(interaction.predict(part).min()) for part in parts)
        found = search(interaction, problem)
        hits += found.objectives[0] <= best * (1 + 1e-9)
        excess.append(found.objectives[0] / best - 1)
        gaps.append(1 - lower_bound(interaction, problem, found.choices[0]).value / found.objectives[0])
    return (
        f"{layers} x {options}",
        f"{hits} of {seeds}",
        f"{100 * max(excess):.2f}",
        f"{100 * statistics.median(gaps):.1f}",
    )


def medium(seed: int, rounds: int) -> tuple[str, ...]:
    """A line of the table of 50 layers."""
    logits, stream = differences(50, 7, 256, 10, seed)
    stored = list(stream)

    def build() -> Interaction:
        builder = builder_of(logits, 50, 7)
        for layer, option, difference in stored:
            builder.add(layer, option, difference)
        return builder.build()

    interaction = build()
    problem = problem_of(interaction, seed)
    start = solve(problem).choice
    long = search(interaction, problem, [start], seed=1, patience=3000).objectives[0]
    building = statistics.median(timed(build)[1] for _ in range(rounds))
    searching = statistics.median(
        timed(lambda: search(interaction, problem, [start]))[1] for _ in range(rounds)
    )
    found = search(interaction, problem, [start])
    bound = lower_bound(interaction, problem, found.choices[0])
    return (
        str(seed),
        f"{building:.3f}",
        f"{searching:.3f}",
        f"{100 * (1 - found.objectives[0] / float(interaction.predict(start))):.1f}",
        f"{100 * (found.objectives[0] / min(long, found.objectives[0]) - 1):.2f}",
        f"{100 * (1 - bound.value / found.objectives[0]):.1f}",
        f"{bound.seconds:.2f}",
    )


def main() -> None:
    """Three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.large:
        large(*args.large)
        return
    quality = ("below the additive plan (%)", "above a long search (%)", "certified gap (%)", "bound (s)")
    lines = [medium(seed, args.rounds) for seed in SEEDS]
    columns = ("seed", "build (s)", "search (s)", *quality)
    body = f"## 50 layers x 7 options x 256 samples x 10 classes\n\n{report.table(columns, lines)}"
    lines = []
    for seed in SEEDS:
        command = [sys.executable, __file__, "--large", "200", "1000", str(seed)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        lines.append(tuple(run.stdout.strip().split(";")))
    columns = ("seed", "build (s)", "search (s)", "peak memory (MiB)", "standard error (%)", *quality)
    body += f"\n\n## 200 layers x 7 options x 256 samples x 1,000 classes\n\n{report.table(columns, lines)}"
    body += (
        "\n\nThe differences themselves would take 1.4 GB; they arrive one by one and only sketches are kept."
    )
    lines = [exhausted(8, 5, 60), exhausted(11, 3, 60)]
    columns = ("layers x options", "optimum found", "worst excess (%)", "median certified gap (%)")
    body += f"\n\n## Against exhaustion\n\n{report.table(columns, lines)}"
    report.write("search_speed", "Search with interactions", body)


if __name__ == "__main__":
    main()
