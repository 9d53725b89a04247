"""Profiles from gradients beside profiles from differences: CPU time, and the plans that come of them.

    python benchmarks/gradient_superposition.py --model model.py:build --weights w.pth --calib DATA/calib --val DATA/val

Weights only, round to nearest, mode superposition without rounds. Both profiles are made in turn in one process; times
are CPU times, their ratio the median over the turns. Plans are judged on images that neither profile saw.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import report
import torch

import lampq
from lampq import adapters
from lampq.adapters.data import Preprocess, read_data
from lampq.core.measuring.candidates import Candidates
from lampq.core.measuring.gradient_rows import Loader, rows_of
from lampq.core.measuring.gram_sums import GramSums
from lampq.core.measuring.interaction import interaction_of
from lampq.core.measuring.measure import measure_plan
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.shrinking import shrinkage, shrunk
from lampq.core.readouts.draws import Draws
from lampq.core.searching.superposition import allocate
from lampq.core.values.problem import Problem
from lampq.solvers import solve

BUDGETS = ("2.25", "2.5", "3.0", "4.0")
KINDS = ("differences", "gradients")
COUNTS = (8, 24, 64)
CLEARLY = np.log(1.02)


class Judge:
    """Damage of plans on images to judge by; plans that come twice are run once."""

    def __init__(self, model, val) -> None:
        self._model = model
        self._reference = measure_reference(model, val)
        self._known: dict[tuple, float] = {}

    def figures(self, profile, mode: str) -> tuple[str, ...]:
        """KL of the plan of every budget."""
        return tuple(f"{self._kl(lampq.plan(profile, average_bits=b, mode=mode)):.4f}" for b in BUDGETS)

    def _kl(self, plan) -> float:
        widths = {layer.name: layer.weight_bits for layer in plan.layers}
        key = tuple(widths.items())
        if key not in self._known:
            self._known[key] = measure_plan(self._model, widths, None, self._reference)
        return self._known[key]


def made(model, images, kind: str) -> tuple[lampq.Profile, float]:
    """A profile, and the CPU seconds it took."""
    began = time.process_time()
    profile = lampq.profile(model, images, rounding="nearest", measure=kind)
    if profile.provenance["measure"] != kind:
        raise SystemExit(f"measured by {profile.provenance['measure']}: {profile.provenance['measured']}")
    return profile, time.process_time() - began


def whole(model, images, judge: Judge, rounds: int) -> str:
    """All images: time, agreement, plans."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    profiles = {}
    for _ in range(rounds):
        for kind in KINDS:
            profiles[kind], spent = made(model, images, kind)
            seconds[kind].append(spent)
    ratios = [one / other for one, other in zip(seconds["gradients"], seconds["differences"], strict=True)]
    rows = [
        (kind, f"{statistics.median(seconds[kind]):.1f}", mode, *judge.figures(profiles[kind], mode))
        for kind in KINDS
        for mode in ("superposition", "kl")
    ]
    columns = ("profile from", "CPU s", "mode", *(f"val KL at {budget} bits" for budget in BUDGETS))
    own, kl = profiles["gradients"].kl, profiles["differences"].kl
    ratio = np.exp(np.log(own / kl).mean(axis=0))
    check = profiles["gradients"].provenance["measured"]
    return (
        report.table(columns, rows)
        + f"\n\nCPU of gradients over differences: {statistics.median(ratios):.3f} (median of {rounds} rounds). "
        + f"{check['directions']} directions a sample; check: {check['check']}. Second-order damage of gradients over "
        + f"measured KL, geometric mean over layers, by width: {', '.join(f'{r:.3f}' for r in ratio)}; Pearson "
        + f"correlation of their logarithms {np.corrcoef(np.log(own).ravel(), np.log(kl).ravel())[0, 1]:.4f}."
    )


def few(model, images, draws: int) -> str:
    """Few images: what their sampling error does to plans, predicted for the images that were not drawn."""
    reference = measure_reference(model, images)
    profile = lampq.profile(model, images.take(range(2)), rounding="nearest", measure="gradients")
    layers, options = profile.kl.shape
    every = Candidates(
        model=model,
        layers=profile.layers,
        options=profile.options,
        available=np.ones((layers, options), dtype=bool),
    )
    numbers = np.arange(images.samples)
    every_class = Draws(labels="exact")
    rows = rows_of(every, reference, every_class, Loader(every, every.every())).reshape(
        images.samples, -1, layers * options
    )

    def sums(some: np.ndarray) -> GramSums:
        result = GramSums(layers * options)
        result.add(rows[some])
        return result

    lines = []
    for count in COUNTS:
        logs = {name: np.zeros((draws, len(BUDGETS))) for name in ("as they are", "shrunk")}
        shares = []
        for draw in range(draws):
            order = np.random.default_rng(draw).permutation(numbers)
            few, others = sums(order[:count]), sums(order[count:])
            shape = (layers, options, layers, options)
            gram, square, truth = (m.reshape(shape) for m in (few.gram, few.square, others.gram))
            shares.append(shrinkage(gram, square, count).mean())
            own = np.minimum.accumulate(np.einsum("ijij->ij", gram), axis=1)
            for number, budget in enumerate(BUDGETS):
                use = profile.sizes[:, None] * profile.weight_bits
                asked = Problem.build(own, use, int(profile.sizes.sum() * float(budget)))
                alone = solve(asked, solver="exact").choice
                for name, one in (("as they are", gram), ("shrunk", shrunk(gram, square, count))):
                    best = allocate(interaction_of(one), asked, [alone], bound_limit_s=0).choices[0]
                    pair = interaction_of(truth).predict(np.array([best, alone]))
                    logs[name][draw, number] = np.log(pair[0] / pair[1])
        for name, log in logs.items():
            lines.append(
                (
                    count,
                    f"{name}" + (f" by {np.mean(shares):.2f}" if name == "shrunk" else ""),
                    *(f"{value:.3f}" for value in np.exp(log.mean(axis=0))),
                    f"{np.exp(log.mean()):.3f}",
                    f"{100 * (log > CLEARLY).mean():.0f} %",
                )
            )
            print(*lines[-1], sep=" | ", flush=True)
    columns = ("images", "interactions", *(f"{budget} bits" for budget in BUDGETS), "all", "clearly worse")
    return report.table(columns, lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag in ("--model", "--weights", "--calib", "--val"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)

    model = adapters.read(args.model, weights=args.weights)
    preprocess = Preprocess.preset("cifar10")
    calib, val = (
        read_data(folder, input_specs=model.input_specs, preprocess=preprocess).inputs()
        for folder in (args.calib, args.val)
    )
    model.layers()
    judge = Judge(model, val)
    parts = [
        f"{len(model.layers())} layers, 7 widths, {calib.samples} calibration images, {val.samples} to judge by; "
        "one thread.",
        whole(model, calib, judge, args.rounds),
        f"## Few images\n\n{args.draws} random draws of the calibration images, exact gradients. Damage of the plan "
        "with interactions over that of the plan of the layers' own damage, both predicted from the images that were "
        "not drawn, geometric mean; clearly worse: by more than 2 %.",
        few(model, calib, args.draws),
    ]
    report.write(
        "gradient_superposition",
        "Interactions from gradients",
        "\n\n".join(parts),
        packages=("numpy", "torch"),
    )


if __name__ == "__main__":
    main()
