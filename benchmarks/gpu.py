"""Profile and quantize PyTorch models on a GPU beside the CPU: seconds, memory, and how far the results differ.

    python benchmarks/gpu.py --model model.py:build --weights weights.pth --calib calib --val val

The CIFAR ViT that the arguments name, and models of the size of ViT-S and ViT-B with random weights and images of
224 x 224. Seconds are of the clock: a processor's time says nothing of a GPU's; every case runs in its own process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from vit_at_size import module_of

import lampq
from lampq.adapters.torch import read as read_module

SETTINGS = {
    "cpu": {"device": "cpu"},
    "cuda": {"device": "cuda"},
    "cuda, bfloat16": {"device": "cuda", "autocast": "bfloat16"},
}
IMAGES = 64
BUDGETS = (2.25, 2.5, 3.0, 4.0)


def seconds_of(work: Any) -> tuple[float, Any]:
    """Seconds of the clock, and what the work gave."""
    began = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def peak_mb() -> float:
    """Largest memory of the GPU that tensors took, MB."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0


def cifar(setting: str, args: argparse.Namespace) -> dict[str, Any]:
    """The real model: a profile, its plans, and a quantized file judged on the CPU."""
    model = lampq.read(args.model, weights=args.weights, **SETTINGS[setting])
    images = lampq.read_data(args.calib, input_specs=model.input_specs, preprocess="cifar10").inputs()
    profile_s, profile = seconds_of(lambda: lampq.profile(model, images))
    plans = [lampq.plan(profile, average_bits=bits) for bits in BUDGETS]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "q.safetensors"
        quantize_s, plan = seconds_of(lambda: lampq.quantize(model, images, out, average_bits=3))
        judge = lampq.read(args.model, weights=args.weights, device="cpu")
        val = lampq.read_data(args.val, input_specs=judge.input_specs, preprocess="cifar10")
        found = lampq.evaluate(
            lampq.read(args.model, weights=out, device="cpu"), val.inputs(), val.labels(), reference=judge
        )
    return {
        "profile_s": profile_s, "quantize_s": quantize_s, "peak_mb": peak_mb(),
        "kl": profile.kl.tolist(), "widths": [[layer.weight_bits for layer in one.layers] for one in plans],
        "measured": plan.measured_kl, "val_kl": found.kl, "top1": found.top1,
        "measure": profile.provenance["measure"],
    }  # fmt: skip


def at_size(setting: str, size: str) -> dict[str, Any]:
    """A model of random weights: a training step's work on all images, and a profile."""
    torch.backends.mha.set_fastpath_enabled(False)
    images = np.random.default_rng(0).normal(size=(IMAGES, 3, 224, 224)).astype(np.float32)
    module = module_of(size).to(SETTINGS[setting]["device"])
    x = torch.from_numpy(images[:8]).to(SETTINGS[setting]["device"])

    def step() -> None:
        module(x).logsumexp(-1).sum().backward()

    step()
    step_s, _ = seconds_of(step)
    model = read_module(module_of(size), input_shape=(3, 224, 224), **SETTINGS[setting])
    profile_s, profile = seconds_of(lambda: lampq.profile(model, images))
    return {
        "step_s": step_s * IMAGES / 8, "profile_s": profile_s, "peak_mb": peak_mb(), "kl": profile.kl.tolist(),
        "measure": profile.provenance["measure"],
    }  # fmt: skip


def alone(case: str, setting: str) -> dict[str, Any]:
    """A case in a process of its own."""
    run = subprocess.run(
        [sys.executable, __file__, "--case", case, "--setting", setting, *sys.argv[1:]],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    print(case, setting, run.stdout.splitlines()[-1][-400:], file=sys.stderr, flush=True)
    return json.loads(run.stdout.splitlines()[-1])


def gap(one: dict[str, Any], other: dict[str, Any]) -> str:
    """How far the damages of single layers differ, relative to all of them."""
    mine, theirs = np.array(one["kl"]), np.array(other["kl"])
    return f"{np.linalg.norm(mine - theirs) / np.linalg.norm(theirs):.1e}"


def main() -> None:
    """Measure all cases, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("--model", "--weights", "--calib", "--val"):
        parser.add_argument(name, required=True)
    parser.add_argument("--sizes", default="S,B", help="models of random weights")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        done = cifar(args.setting, args) if args.case == "cifar" else at_size(args.setting, args.case)
        print(json.dumps(done))
        return
    real = {setting: alone("cifar", setting) for setting in SETTINGS}
    body = report.table(
        ("CIFAR ViT, 520 images", "profile (s)", "quantize (s)", "GPU (MB)", "damages differ", "equal widths",
         "told KL", "val KL", "top-1"),
        [
            (setting, f"{one['profile_s']:.1f}", f"{one['quantize_s']:.1f}", f"{one['peak_mb']:,.0f}",
             gap(one, real["cpu"]), agreement(one, real["cpu"]), f"{one['measured']:.4f}", f"{one['val_kl']:.4f}",
             f"{one['top1']:.2%}")
            for setting, one in real.items()
        ],
    )  # fmt: skip
    for size in filter(None, args.sizes.split(",")):
        large = {setting: alone(size, setting) for setting in SETTINGS}
        first = next(iter(large.values()))
        body += "\n\n" + report.table(
            (f"ViT-{size}, {IMAGES} images", "forward + backward (s)", "profile (s)", "GPU (MB)", "damages differ"),
            [
                (setting, f"{one['step_s']:.2f}", f"{one['profile_s']:.1f}", f"{one['peak_mb']:,.0f}", gap(one, first))
                for setting, one in large.items()
            ],
        )  # fmt: skip
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    report.write(
        "gpu", "On a GPU", f"{body}\n\n- GPU: {gpu}", packages=("numpy", "torch"),
    )  # fmt: skip


def agreement(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Layers whose width is the same, over the plans of all budgets."""
    pairs = [
        mine == theirs
        for plan, reference in zip(one["widths"], other["widths"], strict=True)
        for mine, theirs in zip(plan, reference, strict=True)
    ]
    return f"{sum(pairs)} of {len(pairs)}"


if __name__ == "__main__":
    main()
