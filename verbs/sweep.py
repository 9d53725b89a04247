"""Every budget from one profile."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lampq import solvers
from lampq.core.allocating.limits import Budget, bit_operations, weight_bits
from lampq.core.allocating.pareto import pareto
from lampq.core.allocating.smallest import limited
from lampq.core.searching.superposition import allocate
from lampq.core.values import files
from lampq.core.values.errors import BudgetError, MissingExtraError, RecordError
from lampq.core.values.option import Option
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile
from lampq.verbs.plan import Search, prepare

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Budgets that are searched, with interactions or under several limits, and seconds for each at most.
_SEARCHED = 49
_SEARCH_LIMIT_S = 0.2
# Seconds for each optimum under several limits.
_SOLVE_LIMIT_S = 2.0

AXES: dict[str, Callable[[Profile], np.ndarray]] = {
    "bits": weight_bits,
    "bytes": lambda profile: profile.payload_bytes,
    "bops": bit_operations,
}
"""What can be swept, and how much of it each option takes, int64, shape (L, J)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One plan that no other plan beats in both what is swept and damage.

    Attributes:
        average_bits: Weight width averaged over all weights.
        size_bytes: Bytes of the whole model.
        predicted_kl: Predicted damage, nats.
        widths: Weight width of each layer.
        knee: Whether this is the knee of the curve.
        input_widths: Width of each layer's input, None for float; empty where all options have the same.
        bops: Bit operations per sample, or None where multiply-accumulates are unknown.
    """

    average_bits: float
    size_bytes: int
    predicted_kl: float
    widths: tuple[int, ...]
    knee: bool
    input_widths: tuple[int | None, ...] = ()
    bops: int | None = None


def sweep(
    profile: Profile,
    *,
    mode: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    budget: Budget | None = None,
    against: str | None = None,
    seed: int = 0,
) -> tuple[Point, ...]:
    """The whole trade-off between what a plan costs and its predicted damage, cheapest first.

    With an additive mode and no other limits this is every plan that no other beats, from one dynamic programme. With
    other limits it is the plans of that curve that keep them, and the optima at evenly spaced budgets. In mode
    superposition these plans are judged with interactions, searched further at evenly spaced budgets, and the
    unbeaten ones kept.

    Args:
        profile: Measurements of the model.
        mode: Score, see `lampq.plan`.
        pins: Fixed widths, `PATTERN=BITS`.
        ties: Patterns of layers that take one width together.
        budget: Limits that every plan keeps.
        against: What is swept: `bits` (average weight bits), `bytes` or `bops`. None: BOPs where input widths vary
            and multiply-accumulates are known, else bits.
        seed: Of the search in mode superposition.

    Raises:
        BudgetError: The limits cannot be met, or what is swept is unknown.
    """
    if budget is not None and budget.max_kl is not None:
        raise BudgetError("a sweep shows every damage; leave out the largest KL")
    search = prepare(profile, budget, mode=mode, pins=pins, ties=ties)
    profile = search.profile
    problem = _swept(search, against)
    choices = _candidates(search, problem, seed)
    costs = np.array([problem.usage(choice)[0] for choice in choices])
    damages = np.array([search.predict(choice) for choice in choices])
    kept = _unbeaten(costs, damages)
    knee = _knee(costs[kept], damages[kept])
    rows = np.arange(len(profile.layers))
    varied = _inputs_vary(profile)
    bops = bit_operations(profile) if all(layer.macs is not None for layer in profile.layers) else None
    points = []
    for place, index in enumerate(kept.tolist()):
        choice = choices[index]
        options = [profile.options[option] for option in choice.tolist()]
        points.append(
            Point(
                average_bits=int(profile.sizes @ profile.weight_bits[choice]) / int(profile.sizes.sum()),
                size_bytes=profile.rest_bytes + int(profile.payload_bytes[rows, choice].sum()),
                predicted_kl=float(damages[index]),
                widths=tuple(option.weight_bits for option in options),
                knee=place == knee,
                input_widths=tuple(option.activation_bits for option in options) if varied else (),
                bops=None if bops is None else int(bops[rows, choice].sum()),
            )
        )
    return tuple(points)


def _inputs_vary(profile: Profile) -> bool:
    return len({option.input_bits for option in profile.options}) > 1


def _swept(search: Search, against: str | None) -> Problem:
    """The problem with what is swept as its first resource, without a limit, and all limits that can bind."""
    profile, problem = search.profile, search.problem
    if against is None:
        against = (
            "bops"
            if _inputs_vary(profile) and all(layer.macs is not None for layer in profile.layers)
            else "bits"
        )
    if against not in AXES:
        raise BudgetError(f"sweep against {against!r}: choose {', '.join(AXES)}")
    use = np.where(np.isfinite(problem.cost), AXES[against](profile), 0)
    most = problem.resources.max(axis=2).sum(axis=1)
    kept = np.flatnonzero(most > problem.limits)
    return dataclasses.replace(
        problem,
        resources=np.concatenate([use[None], problem.resources[kept]]),
        limits=np.array([int(use.max(axis=1).sum()), *problem.limits[kept].tolist()], dtype=np.int64),
        resource_names=("swept", *(problem.resource_names[index] for index in kept)),
    )


def _candidates(search: Search, problem: Problem, seed: int) -> list[np.ndarray]:
    """Plans among which the unbeaten ones are, each of shape (L,)."""
    alone = dataclasses.replace(
        problem, resources=problem.resources[:1], limits=problem.limits[:1], resource_names=("swept",)
    )
    curve = pareto(alone)
    choices = [curve.choice(index) for index in range(len(curve))]
    if len(problem.limits) > 1:
        choices = [choice for choice in choices if (problem.usage(choice) <= problem.limits).all()]
    elif search.interaction is None:
        return choices
    for limit in np.linspace(curve.sizes[0], curve.sizes[-1], _SEARCHED).astype(np.int64).tolist():
        trial = limited(problem, limit)
        if len(problem.limits) == 1:
            start = curve.choice(curve.at(limit))
        else:
            found = solvers.solve(trial, time_limit_s=_SOLVE_LIMIT_S)
            if found.choice is None:
                continue
            start = found.choice
            choices.append(start)
        if search.interaction is not None:
            better = allocate(
                search.interaction,
                trial,
                [start],
                seed=seed,
                search_limit_s=_SEARCH_LIMIT_S,
                bound_limit_s=0,
            )
            choices.extend(better.choices)
    if not choices:
        raise BudgetError("no plan that keeps all limits was found in time; relax one of them")
    return choices


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
    """Write a table: average bits, bytes, predicted KL, knee, and a column per layer.

    Where input widths vary there is a column of bit operations too, and layers read `w4a8`.
    """
    import csv

    refuse_clashes([Output(path=path)], force=force)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    varied = any(point.input_widths for point in points)
    more = ["bops"] if varied else []
    names = [layer.name for layer in profile.layers]
    writer.writerow(["average_bits", "size_bytes", "predicted_kl", "knee", *more, *names])
    for point in points:
        widths: list[int | str] = [*point.widths]
        if varied:
            pairs = zip(point.widths, point.input_widths, strict=True)
            widths = [Option(weight_bits=w, activation_bits=a).to_text() for w, a in pairs]
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
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())


def plot(points: Sequence[Point]) -> Figure:
    """The curve as a matplotlib figure, drawn without a display: against bytes, or BOPs where input widths vary."""
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise MissingExtraError("matplotlib", "plot") from err
    figure = Figure(figsize=(6.4, 4), layout="constrained")
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
