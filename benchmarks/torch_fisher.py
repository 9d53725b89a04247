"""What exact Fisher traces cost beside a plain forward and backward pass over the same samples.

    python benchmarks/torch_fisher.py [--threads 1] [--rounds 5]

A ViT-S (12 blocks of width 384, 197 tokens) with random weights and batches of 8. Time is CPU time of alternating
rounds in one process, memory the peak of separate processes above what the loaded model takes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import report
import torch
from torch import nn

from lampq.adapters.torch import read
from lampq.adapters.torch.fisher import fisher_sums
from lampq.core.measuring.reference import measure_reference
from lampq.core.readouts.draws import Draws

BATCH, SAMPLES = 8, 16
KINDS = ("base", "plain", "fisher", "fisher without activations")


class ViT(nn.Module):
    """Images (N, 3, 224, 224) to 1000 logits; of S size without further words."""

    def __init__(self, width: int = 384, depth: int = 12) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 16, 16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x)[:, 0]))


def plain(module: nn.Module, batch: np.ndarray) -> None:
    """The gradient of every weight, as a training step computes it."""
    for start in range(0, len(batch), BATCH):
        logits = module(torch.from_numpy(batch[start : start + BATCH]))
        nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()
        module.zero_grad(set_to_none=True)


def task(kind: str, module: nn.Module, batch: np.ndarray):
    """The function to measure."""
    if kind == "plain":
        return lambda: plain(module, batch)
    model = read(module, input_shape=(3, 224, 224))
    options = {"batch_size": BATCH, "activations": "without" not in kind}
    model.layers()
    reference = measure_reference(model, batch)
    return lambda: fisher_sums(model, reference.inputs, reference.readout, Draws(), **options)


def own_peak_kib() -> int:
    """Largest resident size of this process since it was started (what it was forked from does not count)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def peak_kib(kind: str, threads: int) -> int:
    """Largest resident size of a process that does one task."""
    words = [sys.executable, __file__, "--threads", str(threads), "--only", kind]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    module = ViT().eval()
    # A plain backward pass needs the path that autograd can take.
    torch.backends.mha.set_fastpath_enabled(False)
    batch = np.random.default_rng(0).normal(size=(SAMPLES, 3, 224, 224)).astype(np.float32)
    if args.only:
        if args.only == "base":
            read(module, input_shape=(3, 224, 224)).layers()
        else:
            task(args.only, module, batch)()
        print(own_peak_kib())
        return

    tasks = {kind: task(kind, module, batch) for kind in KINDS[1:]}
    seconds: dict[str, list[float]] = {kind: [] for kind in tasks}
    for _ in range(args.rounds):
        for kind, run in tasks.items():
            began = time.process_time()
            run()
            seconds[kind].append(time.process_time() - began)
    peaks = {kind: peak_kib(kind, args.threads) for kind in KINDS}
    rows = []
    for kind in tasks:
        ratio = statistics.median(a / b for a, b in zip(seconds[kind], seconds["plain"], strict=True))
        extra = (peaks[kind] - peaks["base"]) / 1024
        rows.append(
            (
                {"plain": "forward + backward"}.get(kind, kind),
                f"{statistics.median(seconds[kind]):.2f}",
                f"{ratio:.2f}",
                f"{extra:.0f}",
                f"{peaks[kind] / peaks['plain']:.2f}",
            )
        )
    columns = ("pass", "CPU s", "relative time", "MiB above the loaded model", "relative peak of the process")
    body = report.table(columns, rows)
    body += (
        f"\n\nViT-S, {SAMPLES} samples in batches of {BATCH}, {args.threads} thread(s), seed 0, one probe a "
    )
    body += "sample; the Fisher pass includes recording the tape."
    report.write("torch_fisher", "Cost of exact Fisher traces", body, packages=("numpy", "torch"))


if __name__ == "__main__":
    main()
