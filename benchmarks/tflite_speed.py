"""Time and memory of rewriting a .tflite file, and speed of the results under XNNPACK.

    python benchmarks/tflite_speed.py MODEL.tflite [--rounds 60] [--threads 1]

Each kind of file is written in a process of its own, whose peak memory is reported. The files then take
turns, so that what else the machine does hits all of them; the least processor time of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import report
from ai_edge_litert.interpreter import Interpreter

from lampq.adapters.tflite import read
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer

KINDS = {
    "all 8": lambda index: 8,
    "mixed 4 and 8": lambda index: (4, 8)[index % 2],
    "mixed 2, 4 and 8": lambda index: (8, 4, 4, 8, 2, 4, 8)[index % 7],
    "all 4": lambda index: 4,
    "all 2": lambda index: 2,
}


def main() -> None:
    """Write every kind of file, then race them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        print(json.dumps(rewrite(args.model, *args.write)))
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = {"float": args.model}
        costs = {"float": {}}
        for kind in KINDS:
            paths[kind] = Path(folder) / f"{kind}.tflite"
            command = [sys.executable, __file__, str(args.model), "--write", kind, str(paths[kind])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            costs[kind] = json.loads(done.stdout.splitlines()[-1])
        best = race(paths, args.rounds, args.threads)
        rows = []
        for kind, path in paths.items():
            cost = costs[kind]
            rows.append(
                (
                    kind,
                    f"{path.stat().st_size / 1e6:.2f}",
                    f"{cost['copied_s']:.2f}" if cost else "",
                    f"{cost['peak_mb']:.0f}" if cost else "",
                    f"{cost['verified_s']:.2f}" if cost else "",
                    f"{cost['verified_peak_mb']:.0f}" if cost else "",
                    f"{1e3 * best[kind]:.2f}",
                    f"{best[kind] / best['all 8']:.2f}",
                )
            )
    columns = (
        *(
            "file",
            "MB",
            "read, rewrite, write (s)",
            "peak MB",
            "and with scales chosen and file verified (s)",
        ),
        *("peak MB", "CPU ms per run", "of all 8"),
    )
    body = report.table(columns, rows)
    body += (
        f"\n\n{args.model.stat().st_size / 1e6:.1f} MB in float; {args.threads} thread(s), batch 1, least of "
    )
    body += f"{args.rounds} rounds. Weights per channel, activations quantized while running."
    report.write(
        "tflite_speed", "Rewriting and running TFLite files", body, packages=("numpy", "ai-edge-litert")
    )


def rewrite(model_path: Path, kind: str, out: str) -> dict[str, float]:
    """Seconds and peak memory of writing one file, with the plainest scales and as the library does it."""
    from lampq.adapters.tflite.edit import Draft
    from lampq.adapters.tflite.flatbuffer import encode
    from lampq.adapters.tflite.quantize import Rewriter, code
    from lampq.core.quantizing.quantizer import Quantized, as_rows

    began = time.perf_counter()
    model = read(model_path)
    draft = Draft(model.variant.opened.graph)
    rewriter = Rewriter(draft)
    widths = {name: KINDS[kind](index) for index, name in enumerate(model.variant.opened.weights)}
    widths = {
        name: max(bits, 4) if len(model.variant.opened.weights[name].shape) == 4 else bits
        for name, bits in widths.items()
    }
    for name, weight in model.variant.opened.weights.items():
        rows = as_rows(model.weight(name), weight.channel_axis)
        # The plainest choice of scales, from the largest entry: what is timed here is the format.
        top = (1 << (widths[name] - 1)) - 1
        scale = (np.abs(rows).max(axis=1) / top).astype(np.float32)
        half = 1 << (widths[name] - 1)
        codes = (np.rint(rows / scale[:, None]) + half).astype(np.uint8)
        plain = Quantized(
            codes=codes,
            scale=scale,
            step=1,
            offset=half,
            bits=widths[name],
            squared_error=np.zeros(len(rows)),
        )
        rewriter.apply(code(weight, plain, widths[name]))
    with Path(out).open("wb") as handle:
        for piece in encode(draft.model()):
            handle.write(piece)
    copied = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    model = read(model_path)
    layers = tuple(
        PlanLayer.of(
            layer,
            weight_bits=widths[layer.name],
            payload_bytes=model.payload_bytes(layer, widths[layer.name], "bitplane") or 0,
        )
        for layer in model.layers()
    )
    plan = Plan(layers=layers, mode="uniform", budget={}, container="bitplane", rest_bytes=model.rest_bytes())
    began = time.perf_counter()
    model.write(plan, Path(out))
    verified = time.perf_counter() - began
    if Path(out).stat().st_size != plan.total_bytes:
        raise SystemExit(f"{kind}: {Path(out).stat().st_size} bytes, {plan.total_bytes} planned")
    verified_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"copied_s": copied, "peak_mb": peak, "verified_s": verified, "verified_peak_mb": verified_peak}


def race(paths: dict[str, Path], rounds: int, threads: int) -> dict[str, float]:
    """Least processor seconds per run of each file."""
    runners = {}
    for kind, path in paths.items():
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        detail = interpreter.get_input_details()[0]
        interpreter.set_tensor(
            detail["index"], np.random.default_rng(0).normal(size=detail["shape"]).astype(np.float32)
        )
        interpreter.invoke()
        runners[kind] = interpreter
    best = dict.fromkeys(paths, np.inf)
    for _ in range(rounds):
        for kind, interpreter in runners.items():
            began = time.process_time()
            interpreter.invoke()
            best[kind] = min(best[kind], time.process_time() - began)
    return best


if __name__ == "__main__":
    main()
