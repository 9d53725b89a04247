"""The same model in PyTorch and as its ONNX export: how well their scores agree, and what one plan does to both.

    python benchmarks/torch_onnx_agreement.py --model model.py:build --weights weights.pth --calib DATA/calib \
        --val DATA/val [--samples 64] [--budgets 4,3]

The export is made by lampq. Plans are made from the PyTorch profile and written in both formats; the written
files are what is judged.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import report
from scipy.stats import spearmanr

import lampq
from lampq import adapters
from lampq.adapters.data import Preprocess, read_data
from lampq.adapters.torch.onnx_export import export_onnx
from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.traces import measure_traces
from lampq.core.values.match import match

WIDTHS = (2, 3, 4, 6, 8)


def main() -> None:
    """Export, profile both, compare, write both, evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--calib", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--budgets", default="4,3")
    parser.add_argument("--preset", default="cifar10")
    parser.add_argument("--shape", default="3,32,32")
    args = parser.parse_args()
    shape = tuple(int(side) for side in args.shape.split(","))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = adapters.read(args.model, weights=args.weights, input_shape=shape)
        export_onnx(module, folder / "model.onnx")
        models = {"PyTorch": module, "ONNX": adapters.read(folder / "model.onnx")}
        data = {
            part: read_data(
                path, input_specs=module.input_specs, preprocess=Preprocess.preset(args.preset), samples=n
            )
            for part, path, n in (("calib", args.calib, args.samples), ("val", args.val, None))
        }
        batch = np.asarray(data["calib"].inputs())
        body = scores(models, batch) + "\n\n"
        body += plans(models, batch, data["val"], args, shape, folder)
    body += f"\n\n{args.samples} calibration images, {len(data['val'])} validation images, widths "
    body += (
        f"{', '.join(map(str, WIDTHS))} bits. The plans come from the PyTorch profile, mode superposition."
    )
    report.write(
        "torch_onnx_agreement",
        "One model in PyTorch and ONNX",
        body,
        packages=("numpy", "torch", "onnxruntime"),
    )


def scores(models: dict[str, lampq.core.measuring.model.Model], batch: np.ndarray) -> str:
    """Layers matched and rank correlations of the scores, as a table."""
    module, export = models.values()
    pairs = match(module.layers(), export.layers()).pairs
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    kl = [
        lampq.profile(model, batch, bits=WIDTHS, fisher_draws=0).kl[chosen]
        for model, chosen in ((module, mine), (export, theirs))
    ]
    names = [module.layers()[i].name for i in mine], [export.layers()[j].name for j in theirs]
    traces, seconds = {}, {}
    for label, model, kind, side in (
        ("gradients, PyTorch", module, "true", 0),
        ("gradients, ONNX graph in PyTorch", export, "true", 1),
        ("forward passes, PyTorch", module, "forward", 0),
        ("forward passes, ONNX Runtime", export, "forward", 1),
    ):
        began = time.process_time()
        found = measure_traces(model, measure_reference(model, batch), kind=kind)
        seconds[label] = time.process_time() - began
        if found.kind != kind:
            raise SystemExit(f"{label}: {found.note}")
        traces[label] = np.array([found.weight[name] for name in names[side]])
    exact = traces["gradients, PyTorch"]
    rows = [
        ("single-layer KL, all widths", f"{spearmanr(kl[0].ravel(), kl[1].ravel()).statistic:.4f}",
         f"{np.abs(kl[1] / kl[0] - 1).max():.1e}", ""),
    ]  # fmt: skip
    rows += [
        (f"Fisher traces, {label}", f"{spearmanr(exact, found).statistic:.4f}",
         f"{np.abs(found / exact - 1).max():.1e}", f"{seconds[label]:.1f}")
        for label, found in traces.items()
    ]  # fmt: skip
    table = report.table(
        ("score", "Spearman with PyTorch's", "largest relative difference", "CPU seconds"), rows
    )
    return f"{len(pairs)} of {len(module.layers())} layers matched by fingerprint.\n\n{table}"


def plans(models, batch, val, args, shape: tuple[int, ...], folder: Path) -> str:
    """What the written files do on the validation images, as a table."""
    module, export = models.values()
    inputs, labels = np.asarray(val.inputs()), val.labels()
    rows = []
    floats = {name: lampq.evaluate(model, inputs, labels, reference=module) for name, model in models.items()}
    rows.append(("float", *_figures(floats)))
    profile = lampq.profile(module, batch, bits=WIDTHS, fisher_draws=0)
    for budget in args.budgets.split(","):
        plan = lampq.plan(profile, average_bits=budget)
        lampq.apply(module, plan, folder / "q.safetensors", force=True)
        lampq.apply(export, plan, folder / "q.onnx", force=True)
        written = {
            "PyTorch": adapters.read(args.model, weights=folder / "q.safetensors", input_shape=shape),
            "ONNX": adapters.read(folder / "q.onnx"),
        }
        found = {
            name: lampq.evaluate(model, inputs, labels, reference=module) for name, model in written.items()
        }
        rows.append((f"{budget} bits on average", *_figures(found)))
    columns = ("model", "PyTorch top-1 (%)", "ONNX top-1 (%)", "difference (points)", "PyTorch KL", "ONNX KL")
    return report.table(columns, rows)


def _figures(found: dict[str, lampq.verbs.evaluate.Evaluation]) -> tuple[str, ...]:
    one, other = found.values()
    return (
        *(f"{100 * result.top1:.2f}" for result in (one, other)),
        f"{100 * abs(one.top1 - other.top1):.2f}",
        *(f"{result.kl:.4f}" for result in (one, other)),
    )


if __name__ == "__main__":
    main()
