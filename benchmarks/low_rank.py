"""Bits or rank? Factors of low rank beside the width, at equal bytes, chosen layer by layer by the same allocator.

    python benchmarks/low_rank.py --onnx cifar_vit.onnx --calib DATA/calib --val DATA/val --samples 64

Every layer at every width with factors of every rank (closed form, 8 bits, their bytes counted) is an option of one
profile, by gradients and by differences. Plans for the same bytes of the whole file are made of all options and of
those without factors, the best few measured as `quantize` does, written, and judged through ONNX Runtime.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cifar10
import report

import lampq
from lampq import adapters
from lampq.core.measuring.encoding import with_rounding
from lampq.verbs.best_plan import best_plan

WIDTHS, RANKS = (2, 3, 4, 5, 6), (0, 1, 2, 4, 8)
COLUMNS = (
    "file bytes",
    "measured by",
    "options",
    "width",
    "layers with factors",
    "their ranks",
    "calib KL",
    "val KL",
    "top-1 (%)",
)


def without_factors(profile: lampq.Profile) -> lampq.Profile:
    """The options of a profile that have no factors."""
    return profile.narrowed([index for index, option in enumerate(profile.options) if not option.rank])


def figures(setting, plan: lampq.Plan) -> tuple[str, ...]:
    """What a plan has, and what its file does."""
    ranks = [layer.rank for layer in plan.layers if layer.rank]
    weights = sum(layer.size for layer in plan.layers)
    with tempfile.TemporaryDirectory() as folder:
        out = lampq.apply(setting.model, plan, Path(folder) / "q.onnx", batch=setting.calib)
        if out.size_bytes != plan.total_bytes:
            raise SystemExit(f"the file takes {out.size_bytes} bytes, the plan says {plan.total_bytes}")
        written = adapters.read(out.path)
        calib = lampq.evaluate(written, setting.calib, reference=setting.model)
        val = lampq.evaluate(written, setting.val, setting.labels, reference=setting.model)
    return (
        f"{sum(layer.size * layer.weight_bits for layer in plan.layers) / weights:.3f}",
        str(len(ranks)),
        " ".join(map(str, ranks)),
        f"{calib.kl:.4f}",
        f"{val.kl:.4f}",
        f"{100 * val.top1:.2f}",
    )


def main() -> None:
    """A profile of every kind; at every size a plan of all its options and one of those without factors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cifar10.add_arguments(parser, "--onnx")
    parser.add_argument("--budgets", default="2.25,2.5,3", help="average bits whose bytes are the budget")
    parser.add_argument("--samples", type=int, default=64, help="calibration images (64)")
    args = parser.parse_args()

    setting = cifar10.read(args, args.samples)
    model = with_rounding(setting.model, "inputs", None, setting.calib)
    profiles, seconds = {}, []
    for measure in ("gradients", "differences"):
        for ranks in ((0,), RANKS):
            began = time.process_time()
            choices = {"bits": WIDTHS, "ranks": ranks, "rounding": "inputs", "measure": measure}
            profiles[measure] = lampq.profile(model, setting.calib, **choices)
            seconds.append(f"{time.process_time() - began:.0f} s")
    every = profiles["gradients"]
    rows = []
    for budget in map(float, args.budgets.split(",")):
        size_bytes = lampq.plan(without_factors(every), average_bits=budget).total_bytes
        for measure, profile in profiles.items():
            for options, part in (("bits alone", without_factors(profile)), ("bits and ranks", profile)):
                plan = best_plan(model, part, setting.calib, size_bytes=size_bytes)
                rows.append((f"{plan.total_bytes:,}", measure, options, *figures(setting, plan)))
                print(*rows[-1], sep=" | ", flush=True)
    body = (
        f"{len(every.layers)} layers, {len(setting.calib)} calibration and {len(setting.val)} validation images; codes "
        f"for the layers' inputs, widths {WIDTHS[0]} to {WIDTHS[-1]}, ranks {', '.join(map(str, RANKS))}: "
        f"{len(every.options)} options a layer. CPU of the profile without ranks and with them, the first with the "
        f"choice of codes: {' and '.join(seconds[:2])} by gradients, {' and '.join(seconds[2:])} by differences.\n\n"
        f"{report.table(COLUMNS, rows)}"
    )
    report.write("low_rank", "Low rank against bits at equal bytes", body, packages=("numpy", "onnxruntime"))


if __name__ == "__main__":
    main()
