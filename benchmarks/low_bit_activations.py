"""Weights and all activations of a trained ViT at 6/6, 4/4 and 3/3 bits: searched on calib, judged on val.

    python benchmarks/low_bit_activations.py --model model.py:build --weights weights.pth --calib calib --val val

Sites are inputs of layers and both factors of attention's products, each rounded by the quantizer that loses least by
measured gradients. Both averages are at most b: of weight bits over weights, of activation bits over all values that
layers and products read. The ablation has one width everywhere: no allocation, only quantizers differ.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import report

import lampq
from lampq.adapters.data import Preprocess, read_data
from lampq.adapters.torch import read
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.reference import measure_reference
from lampq.core.treatments import QUANTIZERS, for_role
from lampq.core.treatments.choice import best_rule
from lampq.core.values.errors import RecordError
from lampq.core.values.plan_product import PlanProduct
from lampq.verbs.best_plan import best_plan

WIDTHS = (2, 3, 4, 5, 6, 8)
BUDGETS = (4, 3, 6)
COLUMNS = ("plan", "weight bits", "activation bits", "calib KL", "val KL", "val top-1 (%)", "search CPU s")


class Judge:
    """Validation data, and what the float model makes of it."""

    def __init__(self, model, inputs, labels):
        self.inputs, self.labels = inputs, labels
        self.truth = measure_reference(model, inputs)
        self.top1 = 100 * float((np.asarray(self.truth.outputs).argmax(1) == labels).mean())

    def figures(self, model):
        """KL and top-1 of a model."""
        outputs = model.run(self.inputs)
        top1 = 100 * float((np.asarray(outputs).argmax(1) == self.labels).mean())
        return self.truth.damage(outputs), top1


def averages(profile, plan):
    """Average widths of weights and of all values that layers and products read."""
    inputs = sum(
        layer.activation.count // profile.samples * decision.activation_bits
        for layer, decision in zip(profile.layers, plan.layers, strict=True)
    )
    values = sum(layer.activation.count // profile.samples for layer in profile.layers)
    for decision in plan.products:
        product = decision.product
        inputs += product.left_values * decision.left.bits + product.right_values * decision.right.bits
        values += product.left_values + product.right_values
    return plan.average_bits, inputs / values


def allocated(model, profile, images, judge, budgets):
    """Rows of plans with widths allocated."""
    reference = measure_reference(model, images)
    for bits in budgets:
        began = time.process_time()
        plan = best_plan(
            model,
            profile,
            images,
            lampq.Budget(average_bits=bits, average_input_bits=bits),
            rounds=1,
            reference=reference,
        )
        spent = time.process_time() - began
        kl, top1 = judge.figures(lampq.fake_quantize(model, plan, batch=images))
        widths = averages(profile, plan)
        if max(widths) > bits:
            raise SystemExit(f"{bits}/{bits}: averages {widths}")
        tags = [layer.quantizer.tag for layer in plan.layers]
        tags += [side.tag for product in plan.products for side in (product.left, product.right)]
        counts = ", ".join(f"{tag} {tags.count(tag)}" for tag in sorted(set(tags), key=tags.count)[::-1])
        row = (
            f"**{bits}/{bits} allocated**",
            *(f"{width:.3f}" for width in widths),
            f"{plan.measured_kl:.4f}",
            f"{kl:.4f}",
            f"{top1:.2f}",
            f"{spent:.0f}",
        )
        print(row, counts, flush=True)
        yield row, f"{bits}/{bits}: {counts}"


def fitted(model, images, widths, samples=32):
    """(site, width, quantizer) -> (rule, loss), for every quantizer that can round the site."""
    reference = measure_reference(model, images[np.linspace(0, len(images) - 1, samples).astype(int)])
    names = [layer.name for layer in model.layers()]
    names += [site for product in model.products() for site in product.sites]
    table = {}
    for start in range(0, len(names), 10):
        group = names[start : start + 10]
        for site, seen in model.site_samples(reference.inputs, reference.readout, group).items():
            for quantizer in for_role(seen.role):
                for bits in widths:
                    try:
                        rule = best_rule(seen, bits, [quantizer.name])
                    except RecordError:
                        continue
                    table[site, bits, quantizer.name] = rule.fitted(), seen.loss(rule)
    return table


def one_width(model, table, base, bits, names):
    """The plan with one width everywhere and the best of some quantizers at every site."""

    def best(site):
        choices = [table[site, bits, name] for name in names if (site, bits, name) in table]
        return min(choices, key=lambda choice: choice[1])[0]

    layers = [
        dataclasses.replace(layer, activation_bits=bits, quantizer=best(layer.name)) for layer in base.layers
    ]
    products = [
        PlanProduct(product=product, left=best(product.left), right=best(product.right))
        for product in model.products()
    ]
    return dataclasses.replace(base, layers=tuple(layers), products=tuple(products))


def ablation(model, images, judge, widths=(4, 3)):
    """Rows of quantizers alone and left out, no widths allocated."""
    table = fitted(model, images, widths)
    every = list(QUANTIZERS.loaded)
    settings = [("all", every), ("uniform", ["uniform"])]
    settings += [(f"uniform and {name}", ["uniform", name]) for name in every if name != "uniform"]
    settings += [(f"all but {name}", [n for n in every if n != name]) for name in every]
    figures = {name: [] for name, _ in settings}
    for bits in widths:
        profile = lampq.profile(model, images, bits=(bits,), rounding="inputs", fisher_draws=0)
        base = lampq.plan(profile, average_bits=bits, mode="kl")
        weighted = lampq.fake_quantize(model, base, batch=images)
        for name, names in settings:
            plan = one_width(model, table, base, bits, names)
            kl, top1 = judge.figures(_with_sites(weighted, plan))
            figures[name] += [f"{kl:.4f}", f"{top1:.2f}"]
            print(bits, name, *figures[name][-2:], flush=True)
    return [(name, *some) for name, some in figures.items()]


def _with_sites(weighted, plan):
    from lampq.core.measuring.setting import Setting, plan_rule, site_settings

    inputs = {layer.name: Setting(activation=plan_rule(layer)) for layer in plan.layers}
    return weighted.with_weights(inputs | site_settings(plan))


def main() -> None:
    """Profile once, search for all budgets, judge; then the ablation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "weights", "calib", "val"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument(
        "--samples", type=int, default=128, help="calibration images that plans are measured on (128)"
    )
    parser.add_argument("--profile", type=Path, help="profile of an earlier run; made where there is none")
    parser.add_argument("--no-ablation", action="store_true", help="the plans alone")
    parser.add_argument("--only-ablation", action="store_true", help="the quantizers alone")
    parser.add_argument("--judged", type=int, default=500, help="validation images of the ablation (500)")
    args = parser.parse_args()

    model = read(args.model, weights=args.weights)
    common = {"input_specs": model.input_specs, "preprocess": Preprocess.preset("cifar10")}
    every = np.asarray(read_data(args.calib, samples=None, **common).inputs())
    images = np.asarray(read_data(args.calib, samples=args.samples, seed=0, **common).inputs())
    # Second moments of the inputs are cheap: weights are rounded to those of all images.
    model = with_rounding(model, "inputs", None, every)
    val = read_data(args.val, **common)
    inputs, labels = np.asarray(val.inputs()), val.labels()
    if not args.no_ablation:
        write_ablation(model, images, Judge(model, inputs[: args.judged], labels[: args.judged]))
    if not args.only_ablation:
        write_plans(model, images, Judge(model, inputs, labels), args.profile)


def write_ablation(model, images, judge):
    """Quantizers alone and left out."""
    columns = ("quantizers", "4/4 val KL", "top-1 (%)", "3/3 val KL", "top-1 (%)")
    rows = [("float weights and activations", 0, f"{judge.top1:.2f}", 0, f"{judge.top1:.2f}")]
    body = report.table(columns, [*rows, *ablation(model, images, judge)]) + (
        f"\n\nOne width for all weights and activations, no allocation: only the quantizers differ. Every site takes, "
        f"by gradients on 32 of {len(images)} calibration images, the best of those named that its role allows "
        f"(uniform where none does); weights are rounded to the layers' float inputs. Judged on {len(judge.labels)} "
        f"validation images."
    )
    title = "CIFAR-10 ViT, quantizers of activations alone and left out"
    report.write("low_bit_quantizers", title, body, packages=("numpy", "torch"))


def write_plans(model, images, judge, path):
    """Plans with widths allocated."""
    began = time.process_time()
    if path is not None and path.exists():
        profile = lampq.Profile.read(path)
    else:
        profile = lampq.profile(
            model,
            images,
            bits=WIDTHS,
            act_bits=WIDTHS,
            sites="all",
            rounding="inputs",
            fisher_draws=0,
        )
        if path is not None:
            profile.write(path)
    seconds = time.process_time() - began
    rows = [("float", 32, 32, 0, 0, f"{judge.top1:.2f}", "")]
    counts = []
    for row, text in allocated(model, profile, images, judge, BUDGETS):
        rows.append(row)
        counts.append(text)
    body = report.table(COLUMNS, rows) + (
        f"\n\n{len(profile.layers)} layers, {len(profile.products)} products, {len(profile.options)} pairs of "
        f"widths; {len(images)} calibration images to measure on, {len(judge.labels)} validation images; weights "
        f"rounded to the layers' float inputs on all calibration images; profile {seconds:.0f} s of CPU.\n\n"
        f"Quantizers taken: {'; '.join(counts)}."
    )
    title = "CIFAR-10 ViT, weights and all activations at low bits"
    report.write("low_bit_activations", title, body, packages=("numpy", "torch"))


if __name__ == "__main__":
    main()
