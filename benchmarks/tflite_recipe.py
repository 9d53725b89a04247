"""Plans as recipes of ai-edge-quantizer: the tool is run, and the widths in its file are compared with the
plan's.

    python benchmarks/tflite_recipe.py MODEL.tflite ...

Needs ai-edge-quantizer. The same plan is also written by lampq; both files are run on the same random inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import report
from ai_edge_quantizer import quantizer

from lampq.adapters.tflite import read
from lampq.adapters.tflite.recipe import recipe
from lampq.core.measuring.model import Model
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer


def main() -> None:
    """One row for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    args = parser.parse_args()
    rows = []
    for path in args.models:
        model = read(path)
        plan = _plan(model)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "recipe.json").write_text(json.dumps(recipe(model, plan)), encoding="utf-8")
            tool = quantizer.Quantizer(str(path))
            tool.load_quantization_recipe(folder / "recipe.json")
            with contextlib.redirect_stdout(io.StringIO()):
                (folder / "theirs.tflite").write_bytes(bytes(tool.quantize().quantized_model))
            model.write(plan, folder / "ours.tflite")
            theirs, ours = read(folder / "theirs.tflite"), read(folder / "ours.tflite")
            stored = {key: bits for key, (bits, _) in theirs.stored_bits().items()}
            same = sum(stored.get(layer.name) == layer.weight_bits for layer in plan.layers)
            shape = (8, *(d or 1 for d in model.input_spec.shape[1:]))
            batch = np.random.default_rng(0).normal(size=shape).astype(np.float32)
            expected = np.asarray(model.run(batch))
            outputs = [np.asarray(m.run(batch)) for m in (theirs, ours)]
            errors = [np.linalg.norm(y - expected) / np.linalg.norm(expected) for y in outputs]
            rows.append(
                (
                    *(
                        path.name,
                        f"{same} of {len(plan.layers)}",
                        f"{theirs.file_bytes():,}",
                        f"{ours.file_bytes():,}",
                    ),
                    *(f"{error:.3f}" for error in errors),
                )
            )
    columns = ("model", "widths as planned", "bytes, tool", "bytes, lampq", "error, tool", "error, lampq")
    body = report.table(columns, rows)
    body += "\n\nMixed plans of 2, 4 and 8 bits. Error: relative difference to the float model's logits, on noise."
    packages = ("numpy", "ai-edge-litert", "ai-edge-quantizer")
    report.write("tflite_recipe", "Plans as ai-edge-quantizer recipes", body, packages=packages)


def _plan(model: Model) -> Plan:
    layers = []
    for index, layer in enumerate(model.layers()):
        wanted = (2, 4, 8)[index % 3]
        bits = next(
            b for b in (2, 4, 8) if b >= wanted and model.payload_bytes(layer, b, "bitplane") is not None
        )
        layers.append(
            PlanLayer.of(
                layer,
                weight_bits=bits,
                payload_bytes=model.payload_bytes(layer, bits, "bitplane"),
            )
        )
    return Plan(
        layers=tuple(layers), mode="uniform", budget={}, container="bitplane", rest_bytes=model.rest_bytes()
    )


if __name__ == "__main__":
    main()
