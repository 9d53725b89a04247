"""The whole job on a bundled model and bundled images."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lampq import adapters
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.model import Model
from lampq.core.values.budget import Budget
from lampq.core.values.errors import MissingExtraError
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.plan import Plan
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.rounding_kinds import INPUTS
from lampq.demo_data import MODEL_PATH, calibration, validation
from lampq.verbs.apply import apply
from lampq.verbs.best_plan import best_plan
from lampq.verbs.evaluate import evaluate
from lampq.verbs.plan import plan
from lampq.verbs.profile import profile
from lampq.verbs.sweep import sweep, write_csv, write_plot

# Uniform widths, and budgets in average bits for LampQ: the same size, and one smaller still.
_UNIFORM = (3, 2)
_BUDGETS = (3.0, 2.5)
# Profile, curve and picture.
_FILES = ("profile.json", "pareto.csv", "pareto.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRow:
    """One line of the comparison.

    Attributes:
        name: What was done.
        average_bits: Weight width averaged over all weights; 32 for float.
        payload_bytes: Bytes of weights and scales.
        file_bytes: Bytes of the file.
        top1: Fraction of validation images classified correctly.
        kl: Mean KL to the float model on the validation images, nats.
    """

    name: str
    average_bits: float
    payload_bytes: int
    file_bytes: int
    top1: float
    kl: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return dataclasses.asdict(self)


def demo(
    folder: str | Path | None = None, *, force: bool = False, progress: Progress = quiet
) -> tuple[DemoRow, ...]:
    """Quantize the bundled digits model uniformly and with LampQ at the same size, and compare both with float.

    Args:
        folder: Keeps profile, plans, models, curve and picture; None works in a temporary folder.
        force: Overwrite files there.
        progress: Told what is being done.
    """
    with _workplace(folder) as place:
        refuse_clashes(demo_outputs(place), force=force)
        profile_path, curve_path, plot_path = (place / name for name in _FILES)
        images = calibration()
        model = with_rounding(adapters.read(MODEL_PATH), INPUTS, None, images)
        inputs, labels = validation()
        measured = profile(model, images, rounding=INPUTS, progress=progress)
        measured.write(profile_path, force=force)
        plans = [
            (_uniform_name(bits), plan(measured, average_bits=bits, pins=[f"*={bits}"])) for bits in _UNIFORM
        ]
        for bits in _BUDGETS:
            plans.append((_lampq_name(bits), best_plan(model, measured, images, Budget(average_bits=bits))))
        rows = [_row("float", model, inputs, labels, model, None)]
        for done, (name, chosen) in enumerate(sorted(plans, key=lambda item: -item[1].payload_bytes)):
            plan_path, model_path = _plan_and_model(place, name)
            chosen.write(plan_path, force=force)
            applied = apply(model, chosen, model_path, force=force)
            rows.append(_row(name, adapters.read(applied.path), inputs, labels, model, chosen))
            progress("writing and judging", done + 1, len(plans))
        points = sweep(measured)
        write_csv(measured, points, curve_path, force=force)
        # The picture needs an extra that the demo can do without.
        with contextlib.suppress(MissingExtraError):
            write_plot(points, plot_path, force=force)
    return tuple(rows)


def demo_outputs(folder: Path) -> tuple[Output, ...]:
    """All files that the demo writes to a folder; none where it has yet to be made."""
    if not folder.is_dir():
        return ()
    names = [*map(_uniform_name, _UNIFORM), *map(_lampq_name, _BUDGETS)]
    profile_path, *others = (folder / name for name in _FILES)
    others += [path for name in names for path in _plan_and_model(folder, name)]
    return (Output.profile(profile_path), *(Output(path=path) for path in others))


def _uniform_name(bits: int) -> str:
    return f"uniform {bits} bits"


def _lampq_name(bits: float) -> str:
    return f"LampQ {bits:g} bits"


def _plan_and_model(folder: Path, name: str) -> tuple[Path, Path]:
    stem = name.lower().replace(" ", "-")
    return folder / f"{stem}.json", folder / f"{stem}.onnx"


def _row(
    name: str, model: Model, inputs: np.ndarray, labels: np.ndarray, reference: Model, plan: Plan | None
) -> DemoRow:
    result = evaluate(model, inputs, labels, reference=reference)
    weights = sum(layer.size for layer in reference.layers())
    return DemoRow(
        name=name,
        average_bits=plan.average_bits if plan else 32.0,
        payload_bytes=plan.payload_bytes if plan else 4 * weights,
        file_bytes=result.size_bytes,
        top1=result.top1 or 0.0,
        kl=result.kl or 0.0,
    )


@contextlib.contextmanager
def _workplace(folder: str | Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="lampq-demo-") as name:
            yield Path(name)
    else:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        yield path
