"""NVIDIA ModelOpt's auto_quantize, HAWQ and lampq: same model, budgets, calibration images and quantizers.

    python benchmarks/auto_quantize.py --name modelopt_digits --quantizers common,max --hawq
    python benchmarks/auto_quantize.py --name modelopt --model model.py --weights weights.pth --calib DIR --val DIR

Weights only, 2 to 8 bits a layer. Every plan is searched with one quantizer and judged by two: the common one, and
ModelOpt's own with its default calibration. Needs requirements/peers.txt.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import report
import torch
from peers import quantizers, searches
from peers.quantizers import COMMON, MAX, MSE
from peers.searches import ROUNDS, WIDTHS, Found
from peers.subjects import Subject, cifar, digits

import lampq
from lampq.adapters.torch import read
from lampq.adapters.torch.model import TorchModel
from lampq.core.readouts.softmax import kl_divergence, log_softmax

JUDGES = (COMMON, MAX)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """A plan on the validation images.

    Attributes:
        top1: Accuracy, percent.
        kl: Damage per image, nats, shape (S,).
    """

    top1: float
    kl: np.ndarray


class Court:
    """Judges plans of one model; the same plan is never run twice."""

    def __init__(self, subject: Subject, model: TorchModel) -> None:
        self.subject, self.model = subject, model
        self._inputs, self._labels = subject.validation
        self._reference = np.asarray(model.run(self._inputs))
        self._known: dict[tuple[str, tuple[int, ...]], Verdict] = {}
        self.weights = {
            name: quantizers.quantized_weights(name, model, WIDTHS) for name in (COMMON, MAX, MSE)
        }
        self.top1 = self._accuracy(self._reference)

    def judge(self, found: Found, judge: str) -> Verdict:
        """Top-1 and damage with the weights of one quantizer."""
        names = [layer.name for layer in self.model.layers()]
        key = (judge, tuple(found.widths[name] for name in names))
        if key not in self._known:
            chosen = {name: self.weights[judge][name, found.widths[name]] for name in names}
            logits = np.asarray(self.model.with_weights(chosen).run(self._inputs))
            self._known[key] = Verdict(
                top1=self._accuracy(logits),
                kl=kl_divergence(log_softmax(self._reference), log_softmax(logits)),
            )
        return self._known[key]

    def _accuracy(self, logits: np.ndarray) -> float:
        return 100 * float((logits.argmax(axis=1) == self._labels).mean())


def plans(
    court: Court,
    profile: lampq.Profile,
    seconds: tuple[float, float],
    quantizer: str,
    budgets: Sequence[float],
    with_hawq: bool,
) -> Iterator[Found]:
    """All searches with one quantizer; `seconds` are those of the profile, without Fisher traces and with them."""
    subject, model = court.subject, court.model
    yield from searches.uniform(profile, budgets)
    yield from searches.modelopt(subject, quantizer, searches.GRADIENT, budgets)
    yield from searches.modelopt(subject, quantizer, searches.KL_DIV, budgets)
    if quantizer == COMMON:
        if with_hawq:
            yield from searches.hawq(subject, profile, budgets)
        yield from searches.ours(subject, model, profile, seconds, budgets)
    else:
        yield from searches.ours_with(subject, model, profile, court.weights[quantizer], budgets)


def section(subject: Subject, budgets: Sequence[float], names: Sequence[str], *, with_hawq: bool) -> str:
    """Markdown of one model."""
    model = read(subject.module, input_shape=subject.calibration[0].shape[1:])
    court = Court(subject, model)
    profile, seconds = searches.profiled(model, subject.calibration[0])
    sizes = {layer.name: layer.size for layer in model.layers()}
    parts = [
        f"{len(sizes)} layers, {sum(sizes.values()):,} weights, {len(subject.calibration[0])} calibration and "
        f"{len(subject.validation[0]):,} validation images; float top-1 {court.top1:.2f} %. Attention as plain "
        f"nn.Linear: largest difference of a logit to the published model {subject.difference:.1e}.",
    ]
    for quantizer in names:
        rows = list(plans(court, profile, seconds, quantizer, budgets, with_hawq))
        parts += [f"## Searched with: {quantizers.NAMES[quantizer]}", *_tables(rows, sizes, court)]
        print("\n\n".join(parts[-3:]), flush=True)
    return "\n\n".join(parts)


def _tables(found: Sequence[Found], sizes: dict[str, int], court: Court) -> list[str]:
    rows, verdicts = [], []
    best = {f.budget: f for f in found if f.method == ROUNDS}
    total = sum(sizes.values())
    for f in sorted(found, key=lambda f: f.budget):
        used = sum(sizes[name] * bits for name, bits in f.widths.items())
        over = " (over)" if used > f.budget * total else ""
        cells = [f"{f.budget:g}", f.method, f"{used / total:.4f}{over}"]
        for judge in JUDGES:
            verdict, other = court.judge(f, judge), court.judge(best[f.budget], judge)
            gap = verdict.kl - other.kl
            margin = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
            cells += [f"{verdict.top1:.2f}", f"{verdict.kl.mean():.4f}"]
            cells.append("" if f.method == ROUNDS else f"{gap.mean():+.4f} ± {margin:.4f}")
            if not f.method.startswith("lampq") and gap.mean() < 0 and not over:
                sure = "clearly" if -gap.mean() > margin else "within the margin"
                verdicts.append(
                    f"{f.method} at {f.budget:g} bits judged by {judge} ({gap.mean():+.4f}, {sure})"
                )
        rows.append((*cells, f"{f.measuring_s:.0f} + {f.search_s:.1f}"))
    columns = ["budget", "method", "average bits"]
    for judge in JUDGES:
        columns += [f"{judge}: top-1 (%)", "KL (nats)", "KL less that of the rounds"]
    lost = "; ".join(verdicts) or "none"
    return [
        report.table((*columns, "processor seconds: measuring + search"), rows),
        f"Where other tools have less KL than the rounds: {lost}.",
    ]


def main() -> None:
    """One model, one result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", help="Python file with build(), a post-norm encoder ViT; without it the model of the demo"
    )
    parser.add_argument("--weights")
    parser.add_argument("--calib")
    parser.add_argument("--val")
    parser.add_argument("--budgets", default="2.25,2.5,3.0,4.0")
    parser.add_argument("--quantizers", default=COMMON, help=f"to search with: of {COMMON}, {MAX}, {MSE}")
    parser.add_argument("--hawq", action="store_true", help="HAWQ too, which takes second derivatives")
    parser.add_argument("--name", required=True, help="of the result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    quantizers.register_common()
    budgets = [float(text) for text in args.budgets.split(",")]
    names = args.quantizers.split(",")
    subject = cifar(args.model, args.weights, args.calib, args.val) if args.model else digits()
    body = section(subject, budgets, names, with_hawq=args.hawq)
    packages = ("numpy", "torch", "nvidia-modelopt", "PuLP")
    report.write(args.name, f"ModelOpt and lampq: {subject.name}", f"{_PREFACE}\n\n{body}", packages=packages)


_PREFACE = """\
Weights only, 2 to 8 bits per layer, symmetric, one scale per output channel. Every search has the same model,
calibration images, widths and budget of average bits; ModelOpt has the labels of the calibration images too.
ModelOpt runs as published: `auto_quantize` with its gradient score and integer programme, or with its `kl_div` score
and threshold search, on formats of its own configuration; "not quantized" is left out of them, as in ours. Where the
search is with the common quantizer, ModelOpt calls it as a registered backend. Its rule of one format for q, k and v
holds for all: they are one layer.

KL is that of the validation images, to the float model. "KL less that of the rounds" is the difference to the last
row of the same budget, over the same images, with its 95 % interval: above zero the rounds are better, below zero
they lose. "Uniform" is the widest whole width within the budget. HAWQ, where it is listed, is our own implementation
of its score, with traces of the Hessian of the labelled loss; where these come out below zero they count as zero and
the score means little. Mode `fisher` is the same score with traces of the Fisher information, which cannot be
negative. Seconds are of processor time: what is measured once for all budgets, and what each budget
takes from there."""


if __name__ == "__main__":
    main()
