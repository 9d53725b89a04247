"""Weight-only allocation on a trained ViT: KL and top-1 at several budgets, searched on calib, judged on val.

    python benchmarks/cifar_vit.py --onnx cifar_vit.onnx --calib DATA/calib --val DATA/val

The written files are what is judged, through stock ONNX Runtime; `benchmarks/export_cifar_vit.py` makes the ONNX file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import report

import lampq
from lampq import adapters
from lampq.adapters.data import Preprocess, read_data
from lampq.core.errors import LampqError

MODES = ("lampq", "fisher", "kl", "superposition")


def main() -> None:
    """Profile once, plan for every budget and mode, write, evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--calib", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--budgets", default="2.25,2.5,3.0,4.0")
    args = parser.parse_args()

    model = adapters.read(args.onnx)
    preprocess = Preprocess.preset("cifar10")
    calib = read_data(args.calib, input_spec=model.input_spec, preprocess=preprocess)
    val = read_data(args.val, input_spec=model.input_spec, preprocess=preprocess)
    inputs, labels = val.inputs(), val.labels()
    began = time.perf_counter()
    profile = lampq.profile(model, calib.inputs())
    seconds = time.perf_counter() - began
    base = lampq.evaluate(model, inputs, labels, reference=model)
    rows = [("float", "", "32", f"{base.size_bytes:,}", f"{100 * base.top1:.2f}", "0", "")]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "q.onnx"
        for budget in args.budgets.split(","):
            plans = {}
            if float(budget).is_integer():
                plans["uniform"] = lampq.plan(
                    profile, average_bits=budget, mode="kl", pins=[f"*={int(float(budget))}"]
                )
            for mode in MODES:
                plans[mode] = lampq.plan(profile, average_bits=budget, mode=mode)
            for mode, plan in plans.items():
                if plan.average_bits > float(budget):
                    raise LampqError(f"{mode} exceeds the budget")
                lampq.apply(model, plan, out, force=True)
                found = lampq.evaluate(adapters.read(out), inputs, labels, reference=model)
                predicted = "" if plan.predicted_kl is None else f"{plan.predicted_kl:.4f}"
                rows.append(
                    (mode, budget, f"{plan.average_bits:.4f}", f"{found.size_bytes:,}", f"{100 * found.top1:.2f}",
                     f"{found.kl:.4f}", predicted)
                )  # fmt: skip
                print(rows[-1], flush=True)
    body = report.table(
        (
            "mode",
            "budget (bits)",
            "average bits",
            "file bytes",
            "val top-1 (%)",
            "val KL (nats)",
            "predicted KL",
        ),
        rows,
    )
    body += f"\n\n{len(profile.layers)} layers, {profile.samples} calibration images, {len(inputs)} validation images; "
    body += f"profile in {seconds:.0f} s."
    report.write("cifar_vit", "CIFAR-10 ViT, weight-only", body, packages=("numpy", "onnx", "onnxruntime"))


if __name__ == "__main__":
    main()
