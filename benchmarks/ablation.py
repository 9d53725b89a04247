"""What each ingredient of allocation is worth on a trained ViT: type scale, error term, update, interactions, rounds.

    python benchmarks/ablation.py --onnx cifar_vit.onnx --calib DATA/calib --val DATA/val

Scores are LampQ's (trace of the Fisher information times 4^-B) unless the error term is on, which is the measured
||dW||^2 in its place; the type scale is nats of damage per unit of score, measured at 2 bits. The update is LampQ's,
with the layer errors of neighbouring widths taken from the table named. All layers are free, all plans of one
quantizer, searched on the calibration images and judged on the validation images.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import cifar10
import numpy as np
import report

import lampq
from lampq import solvers
from lampq.core.allocating.allocation import build_problem, uniform_choice
from lampq.core.allocating.predicted_damage import predicted_damage
from lampq.core.measuring.interaction import profile_interaction
from lampq.core.measuring.measure import measure_plan, quantized_weights
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import Reference, measure_reference
from lampq.core.readouts.softmax import kl_divergence, log_softmax
from lampq.core.searching.bench import Bench
from lampq.core.searching.lampq_update import update
from lampq.core.searching.recentre import refine
from lampq.core.searching.superposition import allocate
from lampq.core.values.budget import Budget
from lampq.core.values.profile import Profile


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One line: what is on.

    Attributes:
        scale: Type scale: "-", "nats" (measured) or "mean 1" (traces divided by their type's mean).
        error: Error term: "4^-B", "dW" (measured) or "KL" (measured damage in place of any score); or one of `OTHERS`,
            scores of other papers as they are.
        update: "-" or a table of errors.
        interactions: Whether layers interact.
        rounds: Rounds of re-centring.
    """

    scale: str = "-"
    error: str = "4^-B"
    update: str = "-"
    interactions: bool = False
    rounds: int = 0


OTHERS = ("relevance", "mixed")
VARIANTS = (
    Variant(),
    Variant(scale="mean 1"),
    Variant(scale="nats"),
    Variant(scale="nats", update="paper"),
    Variant(scale="nats", update="mse"),
    Variant(scale="nats", update="measured"),
    Variant(error="dW"),
    Variant(scale="mean 1", error="dW"),
    Variant(scale="nats", error="dW"),
    Variant(error="dW", update="measured"),
    Variant(error="KL"),
    Variant(error="KL", update="measured"),
    Variant(error="KL", interactions=True),
    Variant(error="KL", interactions=True, update="measured"),
    Variant(error="KL", interactions=True, rounds=3),
    Variant(error="relevance"),
    Variant(error="mixed"),
)


def scores(profile: Profile, variant: Variant) -> np.ndarray:
    """Cost of every option, shape (L, J)."""
    if variant.error in OTHERS:
        return predicted_damage(profile, variant.error)[0]
    if variant.error == "KL":
        return predicted_damage(profile, "kl")[0]
    fisher = predicted_damage(profile, "fisher")[0]
    if variant.error == "dW":
        cost = fisher
    else:
        trace = np.array([layer.fisher for layer in profile.layers])
        cost = trace[:, None] * 4.0 ** -profile.weight_bits.astype(np.float64)
    kinds = np.array([layer.kind for layer in profile.layers])
    for kind in dict.fromkeys(kinds.tolist()):
        members = np.flatnonzero(kinds == kind)
        spread = members[np.linspace(0, len(members) - 1, min(3, len(members))).round().astype(int)]
        if variant.scale == "nats":
            cost[members] *= profile.kl[spread, 0].mean() / cost[members, 0].mean()
        elif variant.scale == "mean 1":
            cost[members] /= np.mean([profile.layers[i].fisher for i in members])
    return cost


def plan_of(
    model: Model, profile: Profile, reference: Reference, budget: str, variant: Variant
) -> np.ndarray:
    """The options that a variant chooses, shape (L,)."""
    problem = build_problem(profile, scores(profile, variant), Budget(average_bits=budget))
    choice = solvers.solve(problem).choice
    bench = Bench(model, profile.layers, profile.weight_bits.tolist(), problem, reference)
    tried = [choice]
    if variant.interactions:
        allocation = allocate(profile_interaction(profile), problem, [choice], keep=8, bound_limit_s=0)
        choice, tried = allocation.choices[0], [*allocation.choices, uniform_choice(profile, problem)]
    if variant.update != "-":
        choice = update(bench, choice, table=variant.update).choice
    if variant.rounds:
        choice = refine(bench, tried, rounds=variant.rounds).choice
    return choice


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cifar10.add_arguments(parser, "--onnx")
    parser.add_argument("--budgets", default="2.25,2.5,3")
    parser.add_argument("--errors", help="the rows of these error terms alone, told and not written")
    args = parser.parse_args()

    setting = cifar10.read(args)
    model, calib, inputs, labels = setting.model, setting.calib, setting.val, setting.labels
    truth, reference = np.asarray(model.run(inputs)), measure_reference(model, calib)
    profile = lampq.profile(model, calib, scores=OTHERS)
    budgets = args.budgets.split(",")
    lines = []
    for variant in VARIANTS:
        if args.errors and variant.error not in args.errors.split(","):
            continue
        figures: list[str] = []
        for budget in budgets:
            choice = plan_of(model, profile, reference, budget, variant)
            widths = {
                layer.name: int(bits)
                for layer, bits in zip(profile.layers, profile.weight_bits[choice], strict=True)
            }
            on_calib = measure_plan(model, widths, calib, reference)
            logits = np.asarray(model.with_weights(quantized_weights(model, widths)).run(inputs))
            kl = float(kl_divergence(log_softmax(truth), log_softmax(logits)).mean())
            top1 = float((logits.argmax(axis=1) == labels).mean())
            figures += [f"{on_calib:.4f}", f"{kl:.4f}", f"{100 * top1:.2f}"]
        lines.append(
            (
                variant.scale,
                variant.error,
                variant.update,
                "yes" if variant.interactions else "-",
                str(variant.rounds or "-"),
                *figures,
            )
        )
        print(*lines[-1], sep=" | ", flush=True)
    if args.errors:
        return
    columns = ["type scale", "error term", "update", "interactions", "rounds"]
    for budget in budgets:
        columns += [f"{budget} bits: calibration KL", "validation KL", "top-1 (%)"]
    body = (
        f"{len(profile.layers)} layers, {len(calib)} calibration and {len(inputs)} validation images; float top-1 "
        f"{100 * float((truth.argmax(axis=1) == labels).mean()):.2f} %.\n\n{report.table(columns, lines)}"
    )
    report.write(
        "ablation", "Ablation of allocation on a CIFAR-10 ViT", body, packages=("numpy", "onnxruntime")
    )


if __name__ == "__main__":
    main()
