"""Every budget from one profile."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampq import solvers
from lampq.core.planning.search import Search
from lampq.core.planning.tradeoff import Point, tradeoff
from lampq.core.values import files
from lampq.core.values.budget import Budget
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.profile import Profile
from lampq.core.values.publishing import atomic_path
from lampq.core.values.request import Request
from lampq.core.values.spreadsheet import quoted
from lampq.verbs.canvas import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sweep(
    profile: Profile, request: Request | Budget | None = None, *, against: str | None = None, **choices: Any
) -> tuple[Point, ...]:
    """The whole trade-off between what a plan costs and its predicted damage, cheapest first.

    With an additive mode and no other limits this is every plan that no other beats, from one dynamic programme. With
    other limits it is the plans of that curve that keep them, and the optima at evenly spaced budgets. In mode
    superposition these plans are judged with interactions, searched further at evenly spaced budgets, and the
    unbeaten ones kept.

    Args:
        profile: Measurements of the model.
        request: Limits that every plan keeps, and how to look for them.
        against: What is swept: `bits` (average weight bits), `bytes` or `bops`. None: BOPs where input widths vary
            and multiply-accumulates are known, else bits.
        **choices: Fields of `lampq.Request` and `lampq.Budget` to set, such as `mode="kl"`.

    Raises:
        BudgetError: The limits cannot be met, or what is swept is unknown.
        RecordError: The profile lacks what the mode needs, or a choice is unknown.
    """
    request = Request.of(request, **choices)
    if request.budget is not None and request.budget.max_kl is not None:
        raise BudgetError("a sweep shows every damage; leave out the largest KL")
    return tradeoff(Search.of(profile, request, solvers.solve), against)


def write_csv(profile: Profile, points: Sequence[Point], path: Path, *, force: bool = False) -> None:
    """Write a table: average bits, bytes, predicted KL, knee, and a column per layer.

    Where input widths vary there is a column of bit operations too, and layers read `w4a8`; with factors of low rank
    `w4r2`.
    """
    import csv

    refuse_clashes([Output(path=path)], force=force)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    varied = any(point.input_widths for point in points)
    more = ["bops"] if varied else []
    names = [quoted(place.name) for place in profile.places]
    writer.writerow(["average_bits", "size_bytes", "predicted_kl", "knee", *more, *names])
    for point in points:
        widths: list[int | str] = [*point.widths]
        if varied or point.ranks:
            widths = [option.to_text() for option in point.options]
        writer.writerow(
            [
                f"{point.average_bits:.6f}",
                point.size_bytes,
                f"{point.predicted_kl:.6e}",
                int(point.knee),
                *([point.bops] if varied else []),
                *widths,
            ]
        )
    files.write_text(path, text.getvalue())


def write_plot(points: Sequence[Point], path: Path, *, force: bool = False) -> None:
    """Draw damage against size as a PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    refuse_clashes([Output(path=path)], force=force)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise RecordError(f"plot {path}: name a .png, .svg or .pdf file")
    figure = plot(points)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())


def plot(points: Sequence[Point]) -> Figure:
    """The curve as a matplotlib figure, drawn without a display: against bytes, or BOPs where input widths vary."""
    figure = canvas()
    axes = figure.subplots()
    operations = all(point.input_widths and point.bops is not None for point in points)
    sizes = [(point.bops or 0) / 1e9 if operations else point.size_bytes / 1e6 for point in points]
    damages = [max(point.predicted_kl, 1e-12) for point in points]
    axes.plot(sizes, damages, color="#2463a8", linewidth=1.6)
    for size, point in zip(sizes, points, strict=True):
        if point.knee:
            axes.plot(size, point.predicted_kl, "o", color="#c0392b")
            axes.annotate(
                f" knee: {point.average_bits:.2f} bits",
                (size, point.predicted_kl),
                va="bottom",
            )
    if math.isfinite(max(damages)) and min(damages) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("bit operations per sample (10^9)" if operations else "model size (MB)")
    axes.set_ylabel("predicted damage (nats)")
    axes.grid(alpha=0.3)
    return figure
