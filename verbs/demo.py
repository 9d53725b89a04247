"""The whole job on a bundled model and bundled images."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampq import adapters
from lampq.core.files import refuse_existing
from lampq.core.measure import Progress, quiet
from lampq.core.plan import Plan
from lampq.demo_data import MODEL_PATH, calibration, validation
from lampq.verbs.apply import apply
from lampq.verbs.evaluate import evaluate
from lampq.verbs.plan import plan
from lampq.verbs.profile import profile
from lampq.verbs.sweep import sweep, write_csv, write_plot

_AVERAGE_BITS = 3


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


def demo(folder: str | Path | None = None, *, force: bool = False, progress: Progress = quiet) -> tuple[DemoRow, ...]:
    """Quantize the bundled digits model uniformly and with LampQ at the same size, and compare both with float.

    Args:
        folder: Keeps profile, plans, models, curve and picture; None works in a temporary folder.
        force: Overwrite files there.
        progress: Told what is being done.
    """
    with _workplace(folder) as place:
        outputs = {name: place / name for name in ("profile.json", "profile.npz", "uniform.onnx", "lampq.onnx", "plan.json", "pareto.csv", "pareto.png")}  # fmt: skip
        for path in outputs.values():
            refuse_existing(path, force=force)
        model = adapters.read(MODEL_PATH)
        calib, (inputs, labels) = calibration(), validation()
        measured = profile(model, calib, progress=progress)
        measured.write(outputs["profile.json"], force=force)
        mixed = plan(measured, average_bits=_AVERAGE_BITS)
        mixed.write(outputs["plan.json"], force=force)
        uniform = plan(measured, average_bits=_AVERAGE_BITS, pins=[f"*={_AVERAGE_BITS}"])
        rows = [_row("float", model, inputs, labels, model, None)]
        for name, chosen in (("uniform", uniform), ("lampq", mixed)):
            path = apply(model, chosen, outputs[f"{name}.onnx"], force=force)
            rows.append(_row(f"{name} {_AVERAGE_BITS} bits", adapters.read(path), inputs, labels, model, chosen))
        if folder is not None:
            points = sweep(measured)
            write_csv(measured, points, outputs["pareto.csv"], force=force)
            with contextlib.suppress(ImportError):
                write_plot(points, outputs["pareto.png"], force=force)
    return tuple(rows)


def _row(name, model, inputs, labels, reference, plan: Plan | None) -> DemoRow:
    result = evaluate(model, inputs, labels, reference=reference)
    weights = sum(layer.size for layer in reference.layers())
    return DemoRow(
        name=name,
        average_bits=plan.average_bits if plan else 32.0,
        payload_bytes=plan.payload_bytes if plan else 4 * weights,
        file_bytes=result.size_bytes,
        top1=result.top1,
        kl=result.kl,
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
