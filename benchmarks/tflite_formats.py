r"""One model in three formats: do layers, scores and plans agree?

    python benchmarks/tflite_formats.py --torch model.py:build --weights weights.pth --onnx m.onnx --tflite
        m.tflite \ --calib DATA/calib [--samples 130] [--average-bits 4]

Layers are matched by fingerprint alone. Scores are measured damage at 2, 4 and 8 bits; plans are made from
each format's own profile and compared width by width, and every plan is judged in the TFLite file.
"""

from __future__ import annotations

import argparse

import numpy as np
import report

import lampq
from lampq import adapters
from lampq.adapters import torch as torch_adapter
from lampq.adapters.data import Preprocess, read_data
from lampq.core.measuring.measure import measure_plan
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import measure_reference
from lampq.core.values.match import match
from lampq.verbs.apply import fit_to

WIDTHS = (2, 4, 8)


def main() -> None:
    """Profile in every format, compare pairwise, judge every plan in TFLite."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("torch", "weights", "onnx", "tflite", "calib"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--samples", type=int, default=130)
    parser.add_argument("--average-bits", default="4")
    args = parser.parse_args()

    models = {
        "TFLite": adapters.read(args.tflite),
        "ONNX": adapters.read(args.onnx),
        "PyTorch": torch_adapter.read(args.torch, weights=args.weights),
    }
    specs = models["TFLite"].input_specs
    images = read_data(args.calib, input_specs=specs, preprocess=Preprocess.preset("cifar10"))
    inputs = np.asarray(images.inputs())
    inputs = inputs[np.linspace(0, len(inputs) - 1, args.samples).astype(int)]
    profiles = {n: lampq.profile(m, inputs, bits=WIDTHS, fisher_draws=0) for n, m in models.items()}
    plans = {n: lampq.plan(p, average_bits=args.average_bits, mode="kl") for n, p in profiles.items()}
    target = models["TFLite"]
    reference = measure_reference(target, inputs)
    rows = []
    for name, model in models.items():
        found = match(profiles[name].layers, profiles["TFLite"].layers)
        by_content = sum(
            profiles[name].layers[i].fingerprint.matches(profiles["TFLite"].layers[j].fingerprint)
            for i, j in found.pairs
        )
        mine = np.array([profiles[name].kl[i] for i, _ in found.pairs])
        theirs = np.array([profiles["TFLite"].kl[j] for _, j in found.pairs])
        ranks = [f"{_spearman(mine[:, k], theirs[:, k]):.3f}" for k in range(len(WIDTHS))]
        fitted = fit_to(target, plans[name])
        widths = {layer.name: layer.weight_bits for layer in fitted.layers}
        base = {layer.name: layer.weight_bits for layer in plans["TFLite"].layers}
        same = sum(widths[key] == base[key] for key in base)
        # A convolution's 2 bits become the 4 of its container.
        stored = {key: _stored(target, key, bits) for key, bits in widths.items()}
        damage = measure_plan(target, stored, inputs, reference)
        rows.append(
            (
                name,
                len(model.layers()),
                f"{by_content} of {len(target.layers())}",
                ", ".join(ranks),
                f"{same} of {len(base)}",
                f"{plans[name].average_bits:.3f}",
                f"{damage:.4f}",
            )
        )
    columns = (
        *(
            "profile from",
            "layers",
            "matched by fingerprint",
            "Spearman of damage with TFLite at 2, 4, 8 bits",
        ),
        *("same widths as TFLite's plan", "average bits", "KL in TFLite (nats)"),
    )
    body = report.table(columns, rows)
    body += (
        f"\n\n{args.samples} calibration images, budget {args.average_bits} bits, widths 2, 4 and 8, mode kl."
    )
    report.write(
        "tflite_formats",
        "One model in three formats",
        body,
        packages=("numpy", "torch", "onnxruntime", "ai-edge-litert"),
    )


def _stored(model: Model, name: str, bits: int) -> int:
    layer = next(layer for layer in model.layers() if layer.name == name)
    return next(b for b in WIDTHS if b >= bits and model.payload_bytes(layer, b, "bitplane") is not None)


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
