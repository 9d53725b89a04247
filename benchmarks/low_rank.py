"""Bits or rank? Low-rank compensation beside the width, at equal bytes, chosen layer by layer by the same allocator.

    python benchmarks/low_rank.py --model model.py:build --weights w.pth --calib DATA/calib --val DATA/val

Every layer at every width, with factors of every rank (closed form, 8 bits, their bytes counted), is measured alone;
the knapsack of these damages is solved with all options, and with those of rank 0.
"""

from __future__ import annotations

import argparse

import numpy as np
import report

from lampq import solvers
from lampq.adapters.data import Preprocess, read_data
from lampq.adapters.torch import read
from lampq.core.measuring.encoding import encoder, with_rounding
from lampq.core.measuring.reference import damage, measure_reference
from lampq.core.quantizing.low_rank import compensate, factor_bytes
from lampq.core.quantizing.quantizer import as_rows, from_rows
from lampq.core.values.problem import Problem

WIDTHS, RANKS = (2, 3, 4, 5, 6), (0, 1, 2, 4, 8)
COLUMNS = (
    "payload bytes",
    "options",
    "average bits",
    "layers with factors",
    "their ranks",
    "calib KL",
    "val KL",
    "top-1 (%)",
)


def option_bytes(layer, bits: int, rank: int) -> int:
    """Codes, scales and factors."""
    outputs, inputs = layer.channels, layer.size // layer.channels
    return (layer.size * bits + 7) // 8 + 4 * outputs + factor_bytes(outputs, inputs, rank)


def compensated(model, layer, bits: int, rank: int) -> np.ndarray:
    """What a layer computes with at a width and a rank."""
    rows = as_rows(model.weight(layer.name), layer.channel_axis)
    values = encoder(model, layer.name, layer.channel_axis, WIDTHS)(bits).dequantized().reshape(rows.shape)
    if rank:
        values = values + compensate(rows - values, model.coding.moments[layer.name], rank).product()
    return from_rows(values, layer.shape, layer.channel_axis)


def main() -> None:
    """Measure every option, solve at every size, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "weights", "calib", "val"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--samples", type=int, default=520, help="calibration images (520)")
    parser.add_argument(
        "--budgets", default="2.125,2.25,2.5,3", help="bits a weight that the bytes stand for"
    )
    args = parser.parse_args()

    model = read(args.model, weights=args.weights)
    common = {"input_specs": model.input_specs, "preprocess": Preprocess.preset("cifar10")}
    images = read_data(args.calib, samples=args.samples, seed=0, **common).inputs()
    val = read_data(args.val, **common)
    judged, labels = measure_reference(model, val.inputs()), val.labels()
    coded, reference = with_rounding(model, "inputs", None, images), measure_reference(model, images)
    layers = coded.layers()
    options = [(bits, rank) for bits in WIDTHS for rank in RANKS]
    position = {layer.name: index for index, layer in enumerate(layers)}
    cost = np.full((len(layers), len(options)), np.inf)
    size = np.array([[option_bytes(layer, *option) for option in options] for layer in layers])

    def candidates():
        for layer in layers:
            for column, (bits, rank) in enumerate(options):
                if rank <= min(layer.channels, layer.size // layer.channels):
                    yield layer.name, column, compensated(coded, layer, bits, rank)

    for name, column, outputs in coded.sweep(reference.inputs, candidates()):
        cost[position[name], column] = reference.damage(outputs)
    rows = []
    for budget in map(float, args.budgets.split(",")):
        limit = int(sum(layer.size * budget / 8 + 4 * layer.channels for layer in layers))
        for name in ("bits alone", "bits and ranks"):
            allowed = np.array([rank == 0 or name != "bits alone" for _, rank in options])
            problem = Problem.build(
                cost=np.where(allowed, cost, np.inf),
                resources=size[None],
                limits=[limit],
                resource_names=["bytes"],
                layer_names=[layer.name for layer in layers],
            )
            choice = solvers.solve(problem).choice
            chosen = [options[index] for index in choice]
            pairs = list(zip(layers, chosen, strict=True))
            quantized = coded.with_weights({layer.name: compensated(coded, layer, *o) for layer, o in pairs})
            top1 = (np.asarray(quantized.run(val.inputs())).argmax(1) == labels).mean()
            ranks = [rank for _, rank in chosen if rank]
            rows.append(
                (
                    f"{int(size[np.arange(len(layers)), choice].sum()):,}",
                    name,
                    f"{sum(layer.size * bits for layer, (bits, _) in pairs) / sum(layer.size for layer in layers):.3f}",
                    str(len(ranks)),
                    " ".join(map(str, ranks)),
                    f"{damage(quantized, reference):.4f}",
                    f"{damage(quantized, judged):.4f}",
                    f"{100 * top1:.2f}",
                )
            )
            print(*rows[-1], sep=" | ", flush=True)
    body = (
        f"{len(layers)} layers, {args.samples} calibration and {judged.inputs.samples} validation images; codes for "
        f"the layers' inputs, widths {WIDTHS[0]} to {WIDTHS[-1]}, ranks {', '.join(map(str, RANKS))}.\n\n"
        f"{report.table(COLUMNS, rows)}"
    )
    report.write("low_rank", "Low rank against bits at equal bytes", body, packages=("numpy", "torch"))


if __name__ == "__main__":
    main()
