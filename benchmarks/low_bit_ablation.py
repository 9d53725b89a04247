"""What each ingredient of low-bit plans is worth, alone and left out: quantizers, rewrites, widths, codes, refinement.

    python benchmarks/low_bit_ablation.py --digits
    python benchmarks/low_bit_ablation.py --model model.py:build --weights w.pth --calib C --val V --without rewrites

`nothing` is one width everywhere, one uniform grid for each site, codes nearest to the weights; `everything` has all of
it but what is off by default. Every row is a plan with both averages at most b, searched on the calibration images and
judged on others.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import report
import vit_w4a4

import lampq
from lampq import demo_data
from lampq.adapters.data import Preprocess, read_data
from lampq.adapters.torch import read
from lampq.core.measuring.reference import measure_reference
from lampq.core.treatments import QUANTIZERS
from lampq.core.values.budget import Budget
from lampq.verbs.best_plan import best_plan

COLUMNS = ("bits", "row", "val KL", "val top-1 (%)", "CPU s")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is on. Widths are allocated by `mode`, or the same everywhere where that is empty."""

    quantizers: tuple[str, ...] | None = None
    rewrites: str = "none"
    mode: str = "superposition"
    rounding: str = "corrected"
    refine: int = 0


EVERYTHING = Recipe()
NOTHING = Recipe(quantizers=("uniform",), mode="", rounding="nearest")


def rows(refine):
    """Name of each row, its recipe, and the group that `--without` knows it by."""

    def alone(**choices):
        return dataclasses.replace(NOTHING, **choices)

    def but(**choices):
        return dataclasses.replace(EVERYTHING, **choices)

    yield "nothing", NOTHING, "codes"
    yield "**everything**", EVERYTHING, "codes"
    yield "quantizers alone", alone(quantizers=None), "codes"
    yield "quantizers left out", but(quantizers=("uniform",)), "allocation"
    yield "widths alone (interactions)", alone(mode="superposition"), "allocation"
    yield "widths left out", but(mode=""), "codes"
    yield "interactions left out (`kl`)", but(mode="kl"), "codes"
    yield "score of gradients (`fisher`)", but(mode="fisher"), "codes"
    yield "codes for inputs alone", alone(rounding="inputs"), "codes"
    yield "correction alone", alone(rounding="corrected"), "codes"
    yield "correction left out", but(rounding="inputs"), "codes"
    yield "codes for inputs left out (nearest)", but(rounding="nearest"), "codes"
    for kind in ("one_range", "clipped", "measured"):
        yield f"rewrites {kind} alone", alone(rewrites=kind), "rewrites"
        yield f"everything and rewrites {kind}", but(rewrites=kind), "rewrites"
    yield "refinement and correction alone", alone(rounding="corrected", refine=refine), "refinement"
    yield "everything and refinement", but(refine=refine), "refinement"
    for name in QUANTIZERS.loaded:
        if name != "uniform":
            yield f"uniform and {name}, one width", alone(quantizers=("uniform", name)), "quantizers"
    for name in QUANTIZERS.loaded:
        rest = tuple(other for other in QUANTIZERS.loaded if other != name)
        yield f"all but {name}, one width", alone(quantizers=rest), "quantizers"


class Subject:
    """A model, what it is calibrated with and judged by.

    Profiles are kept: rows that differ in what comes after share one.
    """

    def __init__(self, model, images, inputs, labels):
        self.model, self.images, self.inputs, self.labels = model, images, inputs, labels
        self.truth = measure_reference(model, inputs)
        self._profiles, self._published = {}, None

    def profile(self, recipe, bits):
        """The measurements that a recipe needs, and the seconds they took."""
        near = bits if not recipe.mode else tuple(range(bits - 1, bits + 2))
        rounding = "nearest" if recipe.rounding == "nearest" else "inputs"
        key = recipe.quantizers, recipe.rewrites, near, rounding
        if key not in self._profiles:
            began = time.process_time()
            made = lampq.profile(
                self.model,
                self.images,
                bits=near if recipe.mode else (bits,),
                act_bits=(*near, bits + 2) if recipe.mode else (bits,),
                sites="all",
                quantizers=recipe.quantizers,
                rewrites=recipe.rewrites,
                rounding=rounding,
                fisher_draws=2 if recipe.mode else 0,
            )
            self._profiles[key] = made, time.process_time() - began
        return self._profiles[key]

    def figures(self, recipe, bits):
        """Val KL, top-1 and seconds."""
        profile, seconds = self.profile(recipe, bits)
        began = time.process_time()
        plan = lampq.plan(profile, average_bits=bits, average_input_bits=bits, mode=recipe.mode or "kl")
        plan = dataclasses.replace(plan, rounding=recipe.rounding, refine=recipe.refine)
        quantized = lampq.fake_quantize(self.model, plan, batch=self.images)
        return self.judged(quantized, seconds + time.process_time() - began)

    def published(self, bits):
        """The same of LampQ as published, by the conditions of `vit_w4a4`: factors of products fixed at b bits."""
        began = time.process_time()
        seen = self.model.calibrate(self.images, products=True)
        factors = {name: activation.grid(bits) for name, activation in seen.items() if "@" in name}
        model = self.model.with_products(factors)
        if self._published is None:
            self._published = lampq.profile(self.model, self.images, act_bits=range(2, 9))
        budget = Budget(average_bits=bits, average_input_bits=bits)
        reference = measure_reference(self.model, self.images)
        choices = {"mode": "lampq", "recipe": vit_w4a4.PUBLISHED, "reference": reference}
        plan = best_plan(model, self._published, self.images, budget, **choices)
        quantized = lampq.fake_quantize(model, plan, batch=self.images)
        return self.judged(quantized, time.process_time() - began)

    def judged(self, quantized, seconds):
        """Val KL and top-1 of a quantized model, and the seconds again, as text."""
        outputs = quantized.run(self.inputs)
        top1 = 100 * float((np.asarray(outputs).argmax(1) == self.labels).mean())
        return f"{self.truth.damage(outputs):.4f}", f"{top1:.2f}", f"{seconds:.0f}"


def subject(args):
    """What the arguments name."""
    if args.digits:
        model = read("benchmarks/digits_model.py:build", input_shape=(1, 8, 8))
        inputs, labels = demo_data.validation()
        return Subject(model, demo_data.calibration()[: args.samples], inputs, labels)
    model = read(args.model, weights=args.weights)
    common = {"input_specs": model.input_specs, "preprocess": Preprocess.preset("cifar10")}
    images = np.asarray(read_data(args.calib, samples=args.samples, seed=0, **common).inputs())
    val = read_data(args.val, **common)
    some = slice(0, args.judged)
    return Subject(model, images, np.asarray(val.inputs())[some], val.labels()[some])


def main() -> None:
    """Judge every row at every width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", action="store_true", help="the bundled model and its data")
    for name in ("model", "weights", "calib", "val"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--samples", type=int, default=64, help="calibration images (64)")
    parser.add_argument("--judged", type=int, default=1000, help="validation images (1000)")
    parser.add_argument("--bits", default="4,3", help="widths (4,3)")
    parser.add_argument("--refine", type=int, default=300, help="steps of refinement a block (300)")
    parser.add_argument("--without", default="", help="groups to leave out: rewrites, quantizers, ...")
    args = parser.parse_args()

    judged = subject(args)
    table = []
    for bits in map(int, args.bits.split(",")):
        for name, recipe, group in rows(args.refine):
            if group in args.without.split(","):
                continue
            table.append((f"{bits}/{bits}", name, *judged.figures(recipe, bits)))
            print(" | ".join(table[-1]), flush=True)
        if "published" not in args.without.split(","):
            table.append((f"{bits}/{bits}", "LampQ as published", *judged.published(bits)))
            print(" | ".join(table[-1]), flush=True)
    what = "digits" if args.digits else "cifar_vit"
    body = report.table(COLUMNS, table) + (
        f"\n\n{len(judged.images)} calibration and {len(judged.labels)} validation images, no rounds; widths {'b - 1'} "
        f"to b + 1 of weights, to b + 2 of activations; refinement in {args.refine} steps a block."
    )
    report.write(f"low_bit_ablation_{what}", f"Low bits, {what}: each ingredient alone and left out", body)


if __name__ == "__main__":
    main()
