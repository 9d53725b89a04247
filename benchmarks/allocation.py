"""Allocation of weight bits on a trained ViT: every mode at every budget, predicted beside measured.

    python benchmarks/allocation.py --onnx cifar_vit.onnx --calib DATA/calib --val DATA/val

All searching sees the calibration images only; the validation images judge. Weights alone are quantized, all layers
take part, and within a table every plan uses the same quantizer. `benchmarks/export_cifar_vit.py` makes the ONNX file.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import cifar10
import numpy as np
import report

import lampq
from lampq import solvers
from lampq.core.allocating.allocation import build_problem, uniform_choice
from lampq.core.allocating.predicted_damage import predicted_damage
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.interaction import Interaction, profile_interaction
from lampq.core.measuring.measure import quantized_weights
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, measure_reference
from lampq.core.readouts.softmax import kl_divergence, log_softmax
from lampq.core.searching.bench import Bench
from lampq.core.searching.recentre import refine
from lampq.core.searching.superposition import allocate
from lampq.core.values.budget import Budget
from lampq.core.values.profile import Profile

COLUMNS = (
    "budget (bits)",
    "mode",
    "average bits",
    "predicted KL",
    "calibration KL",
    "validation KL",
    "validation top-1 (%)",
    "gap (%)",
    "seconds",
)

TITLES = {
    "nearest": "Rounding to the nearest level, scale of least squared error",
    "inputs": "Rounding to the layer's inputs",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """What a table is about."""

    model: Model
    profile: Profile
    reference: Reference
    val: np.ndarray
    labels: np.ndarray
    val_logits: np.ndarray
    interaction: Interaction
    costs: dict[str, np.ndarray]
    tries: int
    rounds: int

    def judge(self, choice: np.ndarray) -> tuple[float, float, float]:
        """Calibration KL, validation KL and validation top-1 of a plan."""
        bits = self.profile.weight_bits[choice].tolist()
        widths = {layer.name: width for layer, width in zip(self.profile.layers, bits, strict=True)}
        model = self.model.with_weights(quantized_weights(self.model, widths))
        on_val = np.asarray(model.run(self.val))
        return (
            self.reference.damage(model.run(self.reference.inputs)),
            float(kl_divergence(log_softmax(self.val_logits), log_softmax(on_val)).mean()),
            float((on_val.argmax(axis=1) == self.labels).mean()),
        )


def rows_of(case: Case, budget: str) -> list[tuple[str, ...]]:
    """The lines of one budget."""
    profile = case.profile
    found: list[tuple[str, np.ndarray, float, float | None, float]] = []
    problem = None
    for mode, cost in case.costs.items():
        pins = ("patch_embed=8", "head=8") if mode == "lampq" else ()
        began = time.perf_counter()
        problem = build_problem(profile, cost, Budget(average_bits=budget), pins=pins)
        solution = solvers.solve(problem)
        found.append((mode, solution.choice, solution.objective, solution.gap, time.perf_counter() - began))
    assert problem is not None
    uniform = uniform_choice(profile, problem)
    if float(budget).is_integer():
        found.insert(0, ("uniform", uniform, float(case.interaction.predict(uniform)), None, 0.0))
    began = time.perf_counter()
    starts = [choice for _, choice, *_ in found]
    allocation = allocate(case.interaction, problem, starts, keep=case.tries)
    solution = allocation.solution
    found.append(
        ("superposition", solution.choice, solution.objective, solution.gap, time.perf_counter() - began)
    )
    began = time.perf_counter()
    bench = Bench(case.model, profile.layers, profile.weight_bits.tolist(), problem, case.reference)
    refined = refine(bench, [*allocation.choices, uniform], rounds=case.rounds, tries=case.tries)
    predicted = refined.predicted
    if np.isnan(predicted):
        predicted = float(case.interaction.predict(refined.choice))
    rounds = sum(entry.accepted for entry in refined.rounds[1:])
    found.append(
        (f"superposition, {rounds} rounds", refined.choice, predicted, None, time.perf_counter() - began)
    )
    lines = []
    for mode, choice, predicted, gap, seconds in found:
        calib_kl, val_kl, top1 = case.judge(choice)
        bits = float(profile.sizes @ profile.weight_bits[choice] / profile.sizes.sum())
        lines.append(
            (
                budget,
                mode,
                f"{bits:.3f}",
                f"{predicted:.4f}",
                f"{calib_kl:.4f}",
                f"{val_kl:.4f}",
                f"{100 * top1:.2f}",
                "" if gap is None else f"{100 * gap:.1f}",
                f"{seconds:.2f}",
            )
        )
        print(*lines[-1], sep=" | ", flush=True)
    return lines


def main() -> None:
    """Profile once per quantizer, then plan for every budget and mode."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cifar10.add_arguments(parser, "--onnx")
    parser.add_argument("--budgets", default="2.25,2.5,2.75,3,3.5,4,5,6")
    parser.add_argument("--roundings", default="nearest,inputs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tries", type=int, default=8)
    args = parser.parse_args()

    setting = cifar10.read(args)
    model, calib, inputs, labels = setting.model, setting.calib, setting.val, setting.labels
    val_logits = np.asarray(model.run(inputs))
    body = (
        f"{len(calib)} calibration and {len(inputs)} validation images; float top-1 "
        f"{100 * float((val_logits.argmax(axis=1) == labels).mean()):.2f} %.\n\n"
        "Predicted KL is each mode's own; the gap is proven, by the solver for additive modes and by the "
        "semidefinite relaxation for superposition. Seconds are of the search, for rounds with their measurements."
    )
    for rounding in args.roundings.split(","):
        coded = with_rounding(model, rounding, None, calib)
        began = time.perf_counter()
        profile = lampq.profile(coded, calib, rounding=rounding)
        profiled = time.perf_counter() - began
        case = Case(
            model=coded,
            profile=profile,
            reference=measure_reference(coded, calib),
            val=inputs,
            labels=labels,
            val_logits=val_logits,
            interaction=profile_interaction(profile),
            costs={mode: predicted_damage(profile, mode)[0] for mode in ("lampq", "fisher", "kl")},
            tries=args.tries,
            rounds=args.rounds,
        )
        rows = [line for budget in args.budgets.split(",") for line in rows_of(case, budget)]
        widths = profile.weight_bits.tolist()
        body += (
            f"\n\n## {TITLES[rounding]}\n\n{len(profile.layers)} layers, {int(profile.sizes.sum()):,} weights, "
            f"widths {widths[0]} to {widths[-1]}; profile in {profiled:.0f} s.\n\n{report.table(COLUMNS, rows)}"
        )
    report.write(
        "allocation", "Modes of allocation on a CIFAR-10 ViT", body, packages=("numpy", "onnxruntime")
    )


if __name__ == "__main__":
    main()
