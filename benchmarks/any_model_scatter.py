"""How much the files of `quantize` scatter with the samples that were searched on, against uniform widths.

    python benchmarks/any_model_scatter.py --cache FOLDER [--samples 24] [--only ViT,CLIP] [--name any_model_scatter]

The samples of `any_model.py` in thirds: each third is searched on once, and the other two judge, by the stock runtime
and arithmetic of their own (`zoo/judge.py`). Both files are rounded to inputs and corrected, as `quantize` does.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import report
from any_model import CORRECTED, Verbs, subjects
from zoo import judge
from zoo.subject import JUDGED, Subject

import lampq

BITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Third:
    """What came of searching on a third of the samples.

    Attributes:
        nats: Of the files of uniform widths and of `quantize`, on the other samples.
        widths: Layers at each width, as `quantize` chose them.
        rounding: How it chose codes.
        told: Nats that its plan promises.
    """

    nats: tuple[float, float]
    widths: dict[int, int]
    rounding: str
    told: float


def tried(subject: Subject, folder: Path) -> Third:
    """Both files, judged."""
    folder.mkdir(parents=True, exist_ok=True)
    verbs, model, suffix, flags = Verbs(folder), subject.path, subject.path.suffix, subject.flags
    np.savez(folder / "calib.npz", **subject.calibration)
    data = (
        "--data",
        folder / "calib.npz",
        "--samples",
        len(next(iter(subject.calibration.values()))),
        *flags,
    )
    bits = ("--bits", ",".join(map(str, subject.widths)), "--fisher-draws", 0)
    profile, plan, chosen = folder / "blind.json", folder / "uniform.json", folder / "plan.json"
    files = [folder / f"{name}{suffix}" for name in ("uniform", "quantize")]
    verbs("profile", model, "--no-data", *bits, *flags, "-o", profile, "--force")
    verbs("plan", profile, "--avg-bits", BITS, "--pin", f"*={BITS}", "-o", plan, "--force")
    verbs("apply", model, plan, *data, "--rounding", "corrected", "-o", files[0], "--force")
    size = lampq.Plan.read(plan).total_bytes
    verbs(
        "quantize", model, *data, *bits, "--rounds", 1, "--size", size,
        "-o", files[1], "--plan-out", chosen, "--force",
    )  # fmt: skip
    expected = judge.outputs_of(model, subject.validation, subject.batch)
    outputs = [judge.outputs_of(file, subject.validation, subject.batch) for file in files]
    uniform, planned = (sum(judge.nats(subject, expected, each).values()) for each in outputs)
    result = lampq.Plan.read(chosen)
    widths = [layer.weight_bits for layer in result.layers]
    return Third(
        nats=(uniform, planned),
        widths={width: widths.count(width) for width in sorted(set(widths))},
        rounding=result.rounding,
        told=result.measured_kl or 0.0,
    )


def turned(subject: Subject, number: int) -> Subject:
    """The model with another third of its samples to search on."""
    calibration, validation = {}, {}
    for name, array in subject.calibration.items():
        parts = np.split(np.concatenate([array, subject.validation[name]]), JUDGED + 1)
        calibration[name] = parts.pop(number)
        validation[name] = np.concatenate(parts)
    return dataclasses.replace(subject, calibration=calibration, validation=validation)


def row(name: str, number: int, third: Third) -> tuple[str, ...]:
    """A line of the table."""
    uniform, planned = third.nats
    widths = ", ".join(f"{count} x {width}" for width, count in third.widths.items())
    return (
        *(name, str(number), f"{uniform:.3g}", f"{planned:.3g}", f"{planned / uniform - 1:+.1%}"),
        *(f"{third.told:.3g}", third.rounding, widths),
    )


def main() -> None:
    """Try the models on each third, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for packages, exports and files")
    parser.add_argument(
        "--samples", type=int, default=24, help="to search on, as any_model.py counts them (24)"
    )
    parser.add_argument(
        "--only", default="ViT,CLIP,BERT,iris", help="models whose names begin with one of these"
    )
    parser.add_argument("--name", default="any_model_scatter", help="of the result file")
    args = parser.parse_args()
    rows: list[Sequence[str]] = []
    for subject in subjects(args.cache, args.samples):
        if not subject.name.startswith(tuple(args.only.split(","))):
            continue
        for number in range(JUDGED + 1):
            third = tried(turned(subject, number), args.cache / "scatter" / f"{subject.path.stem}-{number}")
            rows.append(row(subject.name, number, third))
            print(*rows[-1], sep=" | ", flush=True)
    columns = (
        "model",
        "third",
        f"uniform {BITS} bits",
        CORRECTED[1],
        "difference",
        "nats it tells",
        "codes",
        "layers x bits",
    )
    report.write(
        args.name, "Scatter", "\n\n".join((_PREFACE, report.table(columns, rows))), packages=_PACKAGES
    )


_PACKAGES = ("numpy", "onnx", "onnxruntime", "ai-edge-litert", "torch", "transformers")
_PREFACE = """\
Each third of the samples was searched on once, and the other two judge. Nats summed over outputs, of the uniform plan
with codes corrected and of `quantize` at its bytes, in one round."""


if __name__ == "__main__":
    main()
