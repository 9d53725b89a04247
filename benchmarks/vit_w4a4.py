"""Weights and activations of a trained ViT at 4/4 and 3/3 bits on average: searched on calib, judged on val.

    python benchmarks/vit_w4a4.py --model model.py:build --weights weights.pth --calib DATA/calib --val DATA/val

Every row has the same quantizer and the same limits: weight bits averaged over all weights, and input bits averaged
over all values that the layers read, are both at most b. The factors of attention (queries, keys, probabilities,
values) have b bits in every row. Rounding is simulated in float (`lampq.fake_quantize`).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import report

import lampq
from lampq.adapters.data import Preprocess, read_data
from lampq.adapters.torch import read
from lampq.core.allocating.equal_widths import equal_widths
from lampq.core.allocating.limits import bit_operations, input_elements
from lampq.core.measuring.reference import measure_reference
from lampq.core.readouts.softmax import kl_divergence, log_softmax
from lampq.core.values.budget import Budget
from lampq.core.values.recipe import Recipe
from lampq.verbs.best_plan import best_plan

# One width for weights and inputs, type scale from three layers at 2 bits, the printed table of errors, the update.
PUBLISHED = Recipe(type_scale="kl", probes=3, beta=2, gamma=4.0, table="paper")
CONDITIONS = """What is quantized, in every row: weights per output channel, symmetric, scale of least squared error;
inputs of all linear layers and of the patch embedding per tensor, with zero point, ranges of least squared error on
the calibration images (the input of fc2, after the activation function, included); queries, keys, probabilities after
softmax, and values ({factors} tensors) per tensor with zero point, at b bits in every row. Limits in every row: weight
bits averaged over weights <= b, and input bits averaged over all values that the layers read <= b. BOPs (of the layers)
are told, not limited: mixed plans come out up to 10 % above uniform.

LampQ as published: one width for weights and input of a layer ({equal} options), patch embedding and head at 8 bits,
type scale by KL from 3 layers at 2 bits, gamma 4, update with the printed table of errors; like the last row, never
worse on the calibration images than uniform. The others choose the two widths of a layer apart."""
COLUMNS = ("plan", "weight bits", "input bits", "BOPs", "calib KL", "val KL", "val top-1 (%)", "search CPU s")


def plans(model, profile, batch, reference, bits):
    """Name and plan of every row."""
    budget = Budget(average_bits=bits, average_input_bits=bits)
    common = {"reference": reference}
    pins = [f"*=w{bits}a{bits}"]
    yield "uniform", lambda: lampq.plan(profile, budget=budget, mode="kl", pins=pins)
    yield (
        "LampQ as published",
        lambda: best_plan(model, profile, batch, budget, mode="lampq", recipe=PUBLISHED, **common),
    )
    yield "fisher (joint score), pairs", lambda: lampq.plan(profile, budget=budget, mode="fisher")
    yield "kl, pairs", lambda: lampq.plan(profile, budget=budget, mode="kl")
    yield "superposition, pairs", lambda: lampq.plan(profile, budget=budget)
    yield (
        "superposition, pairs, rounds",
        lambda: best_plan(model, profile, batch, budget, rounds=2, **common),
    )


def main() -> None:
    """Profile once, search for both budgets, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "weights", "calib", "val"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--samples", type=int, default=208, help="calibration images (208)")
    parser.add_argument("--profile", help="profile made by an earlier run; where there is none it is written")
    args = parser.parse_args()

    model = read(args.model, weights=args.weights)
    preprocess = Preprocess.preset("cifar10")
    common = {"input_specs": model.input_specs, "preprocess": preprocess}
    images = np.asarray(read_data(args.calib, samples=args.samples, seed=0, **common).inputs())
    val = read_data(args.val, **common)
    inputs, labels = np.asarray(val.inputs()), val.labels()
    began = time.process_time()
    profile = make_profile(model, images, args.profile)
    seconds = time.process_time() - began
    seen = model.calibrate(images, products=True)
    factors = [name for name in seen if "@" in name]
    truth, reference = np.asarray(model.run(inputs)), measure_reference(model, images)
    elements, weights = input_elements(profile), profile.sizes
    operations = bit_operations(profile)
    top1 = 100 * (truth.argmax(1) == labels).mean()
    rows = [("**float**", 32, 32, "", 0, 0, f"{top1:.2f}", "")]
    for bits in (4, 3):
        rounded = model.with_products({name: seen[name].grid(bits) for name in factors})
        for name, search in plans(rounded, profile, images, reference, bits):
            began = time.process_time()
            plan = search()
            spent = time.process_time() - began
            widths = np.array([(layer.weight_bits, layer.activation_bits) for layer in plan.layers])
            average = weights @ widths[:, 0] / weights.sum(), elements @ widths[:, 1] / elements.sum()
            if max(average) > bits:
                raise SystemExit(f"{name} exceeds {bits} bits: {average}")
            chosen = [
                [(o.weight_bits, o.activation_bits) for o in profile.options].index(tuple(pair))
                for pair in widths.tolist()
            ]
            bops = operations[np.arange(len(weights)), chosen].sum()
            judged = lampq.fake_quantize(rounded, plan)
            found = np.asarray(judged.run(inputs))
            rows.append(
                (
                    f"{bits}/{bits} {name}",
                    *(f"{value:.3f}" for value in average),
                    f"{bops:.3e}",
                    f"{reference.damage(judged.run(images)):.4f}",
                    f"{kl_divergence(log_softmax(truth), log_softmax(found)).mean():.4f}",
                    f"{100 * (found.argmax(1) == labels).mean():.2f}",
                    f"{spent:.0f}",
                )
            )
            print(rows[-1], flush=True)
    told = profile.provenance["activations"]
    body = report.table(COLUMNS, rows) + (
        f"\n\n{len(profile.layers)} layers with {len(profile.options)} pairs of widths (2-8 bits each), "
        f"{len(images)} calibration images for search, {len(inputs)} validation images for the figures. "
        f"Profile: {told['runs']} runs for {told['options']} pairs, {told['summed']} of them predicted from sums "
        f"(largest error accepted {told['largest_accepted_error']:.3f}), {seconds:.0f} s of CPU.\n\n"
        + CONDITIONS.format(factors=len(factors), equal=len(equal_widths(profile).options))
    )
    report.write(
        "vit_w4a4",
        "CIFAR-10 ViT, weights and activations at 4/4 and 3/3 bits",
        body,
        packages=("numpy", "torch"),
    )


def make_profile(model, images, path):
    """The profile of all pairs of widths, read where there is one."""
    if path is not None:
        try:
            return lampq.Profile.read(path)
        except lampq.LampqError:
            pass
    profile = lampq.profile(model, images, act_bits=range(2, 9))
    if path is not None:
        profile.write(path, force=True)
    return profile


if __name__ == "__main__":
    main()
