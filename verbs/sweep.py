"""Every budget from one profile."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq.core import files
from lampq.core.errors import MissingExtraError, RecordError
from lampq.core.limits import Budget
from lampq.core.pareto import pareto
from lampq.core.profile import Profile
from lampq.core.superposition import allocate
from lampq.verbs.plan import prepare

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Budgets that are searched with interactions, and seconds for each at most.
_SEARCHED = 49
_SEARCH_LIMIT_S = 0.2


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
    profile: Profile, *, mode: str = "auto", pins: Sequence[str] = (), ties: Sequence[str] = (), seed: int = 0
) -> tuple[Point, ...]:
    """The whole trade-off between average width and predicted damage, cheapest first.

    With an additive mode this is every plan that no other beats, from one dynamic programme. In mode superposition
    the plans of that curve are judged with interactions, searched further at evenly spaced budgets, and the
    unbeaten ones kept.

    Args:
        profile: Measurements of the model.
        mode: Score, see `lampq.plan`.
        pins: Fixed widths, `PATTERN=BITS`.
        ties: Patterns of layers that take one width together.
        seed: Of the search in mode superposition.
    """
    search = prepare(profile, Budget(average_bits=8), mode=mode, pins=pins, ties=ties)
    curve = pareto(search.problem)
    choices = [curve.choice(index) for index in range(len(curve))]
    if search.interaction is not None:
        for limit in np.linspace(curve.sizes[0], curve.sizes[-1], _SEARCHED).astype(np.int64):
            problem = dataclasses.replace(search.problem, limits=np.array([limit]))
            start = choices[curve.at(int(limit))]
            found = allocate(
                search.interaction,
                problem,
                [start],
                seed=seed,
                search_limit_s=_SEARCH_LIMIT_S,
                bound_limit_s=0,
            )
            choices.extend(found.choices)
    sizes = np.array([search.problem.usage(choice)[0] for choice in choices])
    damages = np.array([search.predict(choice) for choice in choices])
    kept = _unbeaten(sizes, damages)
    knee = _knee(sizes[kept], damages[kept])
    rows = np.arange(len(profile.layers))
    return tuple(
        Point(
            average_bits=int(sizes[index]) / int(profile.sizes.sum()),
            size_bytes=profile.rest_bytes + int(profile.payload_bytes[rows, choices[index]].sum()),
            predicted_kl=float(damages[index]),
            widths=tuple(profile.weight_bits[choices[index]].tolist()),
            knee=place == knee,
        )
        for place, index in enumerate(kept.tolist())
    )


def _unbeaten(sizes: np.ndarray, damages: np.ndarray) -> np.ndarray:
    """Indices of the plans that none of equal or smaller size beats, smallest first."""
    order = np.lexsort((damages, sizes))
    best = np.minimum.accumulate(damages[order])
    better = np.concatenate([[True], damages[order][1:] < best[:-1]])
    return order[better]


def _knee(sizes: np.ndarray, damages: np.ndarray) -> int:
    """The point farthest below the line between the ends, both axes scaled to 0..1 (Satopaa et al., 2011)."""
    if len(sizes) < 3:
        return 0
    across = (sizes - sizes[0]) / (sizes[-1] - sizes[0])
    down = (damages[0] - damages) / max(damages[0] - damages[-1], np.finfo(np.float64).tiny)
    return int((down - across).argmax())


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
