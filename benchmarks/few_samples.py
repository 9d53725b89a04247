"""What plans say of their damage, and what images that nobody has seen lose: by number of calibration images.

    python benchmarks/few_samples.py --model model.py:build --weights w.pth --calib DATA/calib --val DATA/val

Weights alone, rounded to the layers' inputs (`inputs`), and corrected layer after layer (`corrected`), widths by
`quantize` in between: gradients, interactions, two rounds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import report

import lampq
from lampq.adapters.data import Preprocess, read_data
from lampq.adapters.torch import read
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.reference import damage, measure_reference
from lampq.core.measuring.setting import simulated
from lampq.core.planning.corrected import corrected_plan
from lampq.core.values.budget import Budget
from lampq.verbs.best_plan import best_plan

COLUMNS = (
    "images",
    "bits",
    "codes",
    "KL that the plan tells",
    "KL on the images that codes were fitted to",
    "val KL",
    "val KL / told",
    "val top-1 (%)",
    "CPU s",
)


def main() -> None:
    """Every number of images, every budget."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "weights", "calib", "val"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--samples", default="64,520")
    parser.add_argument("--budgets", default="2.25,2.5,3")
    args = parser.parse_args()

    model = read(args.model, weights=args.weights)
    common = {"input_specs": model.input_specs, "preprocess": Preprocess.preset("cifar10")}
    val = read_data(args.val, **common)
    judged, labels = measure_reference(model, val.inputs()), val.labels()
    rows = []
    for samples in map(int, args.samples.split(",")):
        images = read_data(args.calib, samples=samples, seed=0, **common).inputs()
        began = time.process_time()
        fitted = with_rounding(model, "inputs", None, images)
        profile = lampq.profile(fitted, images, rounding="inputs", fisher_draws=0, measure="gradients")
        profiled = time.process_time() - began
        reference = measure_reference(model, images)
        for budget in args.budgets.split(","):
            began = time.process_time()
            plan = best_plan(fitted, profile, images, Budget(average_bits=budget), rounds=2)
            searched = time.process_time()
            corrected, better = corrected_plan(fitted, plan, reference)
            seconds = searched - began, time.process_time() - searched
            for coded, each, spent in zip((fitted, corrected), (plan, better), seconds, strict=True):
                quantized = simulated(coded, each)
                kl = damage(quantized, judged)
                top1 = (np.asarray(quantized.run(val.inputs())).argmax(1) == labels).mean()
                rows.append(
                    (
                        str(samples),
                        budget,
                        each.rounding,
                        f"{each.measured_kl:.4f}",
                        f"{damage(quantized, reference):.4f}",
                        f"{kl:.4f}",
                        f"{kl / each.measured_kl:.2f}",
                        f"{100 * top1:.2f}",
                        f"{spent:.0f}",
                    )
                )
                print(*rows[-1], sep=" | ", flush=True)
        print(f"profile of {samples} images: {profiled:.0f} s", flush=True)
    body = (
        f"{len(model.layers())} layers, weights alone, {judged.inputs.samples} validation images. Told is what halves "
        f"of the calibration images lose with codes fitted to the other half.\n\n{report.table(COLUMNS, rows)}"
    )
    report.write("few_samples", "Calibration images and damage on others", body, packages=("numpy", "torch"))


if __name__ == "__main__":
    main()
