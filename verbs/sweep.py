"""Every budget from one profile."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq.core import files
from lampq.core.allocation import Budget, build_problem
from lampq.core.errors import MissingExtraError, RecordError
from lampq.core.pareto import pareto
from lampq.core.profile import Profile
from lampq.core.scores import automatic_mode, predicted_damage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One plan that no other plan beats in both size and damage.

    Attributes:
        average_bits: Weight width averaged over all weights.
        size_bytes: Bytes of the whole model.
        predicted_kl: Predicted damage, nats.
        widths: Weight width of each layer.
        knee: Whether this is the knee of the curve.
    """

    average_bits: float
    size_bytes: int
    predicted_kl: float
    widths: tuple[int, ...]
    knee: bool


def sweep(
    profile: Profile, *, mode: str = "auto", pins: Sequence[str] = (), ties: Sequence[str] = ()
) -> tuple[Point, ...]:
    """The whole trade-off between average width and predicted damage, cheapest first.

    Args:
        profile: Measurements of the model.
        mode: Score, see `lampq.plan`.
        pins: Fixed widths, `PATTERN=BITS`.
        ties: Patterns of layers that take one width together.
    """
    if mode == "auto":
        mode = automatic_mode(profile)
    cost, _ = predicted_damage(profile, mode)
    problem = build_problem(profile, cost, Budget(average_bits=8), pins=pins, ties=ties)
    curve = pareto(problem)
    weights = int(profile.sizes.sum())
    rows = np.arange(len(profile.layers))
    return tuple(
        Point(
            average_bits=int(curve.sizes[index]) / weights,
            size_bytes=profile.rest_bytes + int(profile.payload_bytes[rows, curve.choice(index)].sum()),
            predicted_kl=float(curve.damages[index]),
            widths=tuple(profile.weight_bits[curve.choice(index)].tolist()),
            knee=index == curve.knee,
        )
        for index in range(len(curve.sizes))
    )


def write_csv(profile: Profile, points: Sequence[Point], path: Path, *, force: bool = False) -> None:
    """Write a table: average bits, bytes, predicted KL, knee, and a column per layer."""
    import csv

    files.refuse_existing(path, force=force)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["average_bits", "size_bytes", "predicted_kl", "knee", *(layer.name for layer in profile.layers)]
    )
    for point in points:
        writer.writerow(
            [
                f"{point.average_bits:.6f}",
                point.size_bytes,
                f"{point.predicted_kl:.6e}",
                int(point.knee),
                *point.widths,
            ]
        )
    files.write_text(path, text.getvalue())


def write_plot(points: Sequence[Point], path: Path, *, force: bool = False) -> None:
    """Draw damage against size as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    files.refuse_existing(path, force=force)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise RecordError(f"plot {path}: name a .png, .svg or .pdf file")
    figure = plot(points)
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())


def plot(points: Sequence[Point]) -> Figure:
    """The curve as a matplotlib figure, drawn without a display."""
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise MissingExtraError("matplotlib", "plot") from err
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    sizes = [point.size_bytes / 1e6 for point in points]
    damages = [max(point.predicted_kl, 1e-12) for point in points]
    axes.plot(sizes, damages, color="#2463a8", linewidth=1.6)
    for point in points:
        if point.knee:
            axes.plot(point.size_bytes / 1e6, point.predicted_kl, "o", color="#c0392b")
            axes.annotate(
                f" knee: {point.average_bits:.2f} bits",
                (point.size_bytes / 1e6, point.predicted_kl),
                va="bottom",
            )
    if math.isfinite(max(damages)) and min(damages) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("model size (MB)")
    axes.set_ylabel("predicted damage (nats)")
    axes.grid(alpha=0.3)
    return figure
