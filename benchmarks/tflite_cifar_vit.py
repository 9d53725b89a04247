"""Allocation for a trained ViT in TFLite's containers: KL and top-1 at several budgets, searched on calib,
judged on val.

    python benchmarks/tflite_cifar_vit.py --tflite cifar_vit.tflite --calib DATA/calib --val DATA/val

The written files are what is judged. The model is converted by litert-torch with a batch of one.
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

WIDTHS = (2, 4, 8)


def main() -> None:
    """Profile once, plan for every budget and mode, write, evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cifar10.add_arguments(parser, "--tflite")
    parser.add_argument("--budgets", default="2.5,3.0,4.0,5.0")
    parser.add_argument("--modes", default="kl")
    args = parser.parse_args()

    setting = cifar10.read(args)
    model, calib, inputs, labels = setting.model, setting.calib, setting.val, setting.labels
    began = time.perf_counter()
    profile = lampq.profile(model, calib, bits=WIDTHS, fisher_draws=0)
    seconds = time.perf_counter() - began
    base = lampq.evaluate(model, inputs, labels, reference=model)
    rows = [("float", "", "32", f"{base.size_bytes:,}", f"{100 * base.top1:.2f}", "0", "", "")]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "q.tflite"
        for name, options in _cases(args.budgets, args.modes.split(",")):
            plan = lampq.plan(profile, **options)
            lampq.apply(model, plan, out, force=True)
            found = lampq.evaluate(adapters.read(out), inputs, labels, reference=model)
            exact = (
                "yes"
                if found.size_bytes == plan.total_bytes
                else f"off by {found.size_bytes - plan.total_bytes}"
            )
            predicted = "" if plan.predicted_kl is None else f"{plan.predicted_kl:.4f}"
            rows.append(
                (name, options.get("average_bits", ""), f"{plan.average_bits:.4f}", f"{found.size_bytes:,}",
                 f"{100 * found.top1:.2f}", f"{found.kl:.4f}", predicted, exact)
            )  # fmt: skip
            print(rows[-1], flush=True)
    body = report.table(
        (
            *("mode", "budget (bits)", "average bits", "file bytes", "val top-1 (%)", "val KL (nats)"),
            *("predicted KL", "bytes as planned"),
        ),
        rows,
    )
    body += (
        f"\n\n{len(profile.layers)} layers, {profile.samples} calibration images, {len(inputs)} validation "
    )
    body += f"images; profile in {seconds:.0f} s. Weights in containers of 2, 4 and 8 bits, activations "
    body += "quantized while running."
    report.write("tflite_cifar_vit", "CIFAR-10 ViT as TFLite", body, packages=("numpy", "ai-edge-litert"))


def _cases(budgets: str, modes: list[str]) -> list[tuple[str, dict[str, object]]]:
    cases: list[tuple[str, dict[str, object]]] = []
    for bits in (8, 4):
        pins = [f"*={bits}"]
        cases.append((f"uniform {bits}", {"average_bits": str(bits), "mode": "kl", "pins": pins}))
    for budget in budgets.split(","):
        cases += [(mode, {"average_bits": budget, "mode": mode}) for mode in modes]
    return cases


if __name__ == "__main__":
    main()
