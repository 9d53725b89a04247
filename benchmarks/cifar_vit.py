"""Weight-only allocation on a trained ViT: KL and top-1 at several budgets, searched on calib, judged on val.

    python benchmarks/cifar_vit.py --onnx cifar_vit.onnx --calib DATA/calib --val DATA/val

The written files are what is judged, through stock ONNX Runtime; `benchmarks/export_cifar_vit.py` makes the ONNX file.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cifar10
import onnx
import report

import lampq
from lampq import adapters
from lampq.core.measuring.encoding import with_rounding
from lampq.core.values.budget import Budget
from lampq.verbs.best_plan import best_plan

MODES = ("lampq", "fisher", "kl", "superposition")


def plans(model, profile, batch, budget) -> Iterator[tuple[str, lampq.Plan]]:
    """A plan of every mode, uniform first where the budget is a width, the rounds of `quantize` last."""
    if float(budget).is_integer():
        yield "uniform", lampq.plan(profile, average_bits=budget, mode="kl", pins=[f"*={int(float(budget))}"])
    for mode in MODES:
        yield mode, lampq.plan(profile, average_bits=budget, mode=mode)
    yield "superposition, rounds", best_plan(model, profile, batch, Budget(average_bits=budget))


def stored_bytes(path: Path) -> int:
    """Bytes of codes and scales in a written file."""
    tensors = onnx.load(path).graph.initializer
    stored = [t for t in tensors if re.search(r"\.([124]b\d|int8|scale)$", t.name)]
    return sum(onnx.numpy_helper.to_array(t).nbytes for t in stored)


def figures(model, plan, inputs, labels) -> tuple[str, ...]:
    """What the file of a plan weighs and does."""
    with tempfile.TemporaryDirectory() as folder:
        out = lampq.apply(model, plan, Path(folder) / "q.onnx").path
        payload = stored_bytes(out)
        if payload != plan.payload_bytes:
            raise SystemExit(f"the file stores {payload} bytes, the plan says {plan.payload_bytes}")
        found = lampq.evaluate(adapters.read(out), inputs, labels, reference=model)
    return (
        f"{plan.average_bits:.4f}",
        f"{payload:,}",
        f"{found.size_bytes:,}",
        f"{100 * found.top1:.2f}",
        f"{found.kl:.4f}",
        "" if plan.predicted_kl is None else f"{plan.predicted_kl:.4f}",
        "" if plan.measured_kl is None else f"{plan.measured_kl:.4f}",
    )


def main() -> None:
    """Profile once, plan for every budget and mode, write, evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cifar10.add_arguments(parser, "--onnx")
    parser.add_argument("--budgets", default="2.25,2.5,3.0,4.0")
    parser.add_argument("--roundings", default="inputs,nearest")
    args = parser.parse_args()

    setting = cifar10.read(args)
    model, images, inputs, labels = setting.model, setting.calib, setting.val, setting.labels
    base = lampq.evaluate(model, inputs, labels, reference=model)
    weights = 4 * sum(layer.size for layer in model.layers())
    rows = [
        ("float", "", "", "32", f"{weights:,}", f"{base.size_bytes:,}", f"{100 * base.top1:.2f}", "0", "", "")
    ]
    seconds = []
    for rounding in args.roundings.split(","):
        coded = with_rounding(model, rounding, None, images)
        began = time.perf_counter()
        profile = lampq.profile(coded, images, rounding=rounding)
        seconds.append(f"{time.perf_counter() - began:.0f} s ({rounding})")
        for budget in args.budgets.split(","):
            for mode, plan in plans(coded, profile, images, budget):
                if plan.average_bits > float(budget):
                    raise SystemExit(f"{mode} exceeds the budget of {budget} bits")
                rows.append((mode, budget, rounding, *figures(coded, plan, inputs, labels)))
                print(*rows[-1], sep=" | ", flush=True)
    body = report.table(
        (
            "mode",
            "budget (bits)",
            "rounding",
            "average bits",
            "payload bytes",
            "file bytes",
            "val top-1 (%)",
            "val KL (nats)",
            "predicted KL",
            "calib KL",
        ),
        rows,
    )
    body += (
        f"\n\n{len(profile.layers)} layers, {profile.samples} calibration images, {len(inputs)} validation images; "
        f"profile in {', '.join(seconds)}."
    )
    report.write("cifar_vit", "CIFAR-10 ViT, weight-only", body, packages=("numpy", "onnx", "onnxruntime"))


if __name__ == "__main__":
    main()
