"""Plan in, page out: what a plan does and why, for a person to read."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from lampq import solvers
from lampq.core.planning.asked import asked
from lampq.core.planning.search import Search
from lampq.core.planning.tradeoff import tradeoff
from lampq.core.searching.why import next_changes
from lampq.core.values.errors import BudgetError, PlanError, RecordError
from lampq.core.values.files import write_text
from lampq.core.values.outputs import Output, refuse_clashes
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.core.values.rounding_kinds import CORRECTED, INPUTS, NEAREST
from lampq.page.document import render
from lampq.page.findings import Findings, Point, Step, Surroundings
from lampq.verbs.explored import explored
from lampq.verbs.placed import placed_choice, places

_CODES = {
    NEAREST: "codes nearest to the weights",
    INPUTS: "codes fitted to the layers’ inputs",
    CORRECTED: "codes that make up for the layers before",
}


def report(
    plan: Plan,
    out: str | Path,
    *,
    profile: Profile | None = None,
    seed: int = 0,
    force: bool = False,
    plan_file: str = "plan.json",
    profile_file: str = "profile.json",
) -> Path:
    """Write a plan as one self-contained HTML page, smaller than 500 kB, that loads nothing from anywhere.

    Args:
        plan: The plan.
        out: Page to write.
        profile: What the plan was made from, or another profile of the same model. It adds every other budget, the
            uniform plans, the interactions between layers, and what each layer's next widths would change.
        seed: Of the search behind the curve.
        force: Overwrite `out`.
        plan_file: Name of the plan's file in the commands that the page shows.
        profile_file: Name of the profile's.

    Raises:
        OutputExistsError: `out` exists and `force` is false.
        PlanError: The profile is of another model, lacks a width that the plan uses, or has other products.
    """
    out = Path(out)
    refuse_clashes([Output(path=out)], force=force)
    around = None if profile is None else surroundings(plan, profile, seed=seed, profile_file=profile_file)
    write_text(out, render(Findings(plan=plan, around=around, plan_file=plan_file)))
    return out


def surroundings(
    plan: Plan, profile: Profile, *, seed: int = 0, profile_file: str = "profile.json"
) -> Surroundings:
    """What a profile tells about a plan; arguments and errors as of `report`."""
    order = places(plan, profile)
    layers = order[: len(plan.layers)]
    choice = placed_choice(plan, profile, order)
    search = _search(plan, profile, order, choice, seed)
    points = tradeoff(search)
    rows = np.arange(len(choice))
    # Uniform plans are compared at the input width that most layers of the plan have.
    inputs = Counter(layer.activation_bits for layer in plan.layers).most_common(1)[0][0]

    def damage(option: np.ndarray) -> float:
        # A uniform plan need not keep the pins, so it is not the problem's to judge.
        if search.interaction is not None:
            return search.predict(option)
        return float(search.cost[rows, option].sum())

    def point(option: np.ndarray) -> Point:
        return Point(
            size_bytes=profile.total_bytes(option),
            damage=max(0.0, damage(option)),
            average_bits=profile.average_bits(option),
        )

    narrower, wider = _steps(search, choice)
    here = point(choice)
    uniform = {
        bits: index
        for index, bits in enumerate(profile.weight_bits.tolist())
        if (profile.options[index].activation_bits, profile.options[index].rank) == (inputs, 0)
        and profile.available[:, index].all()
    }
    return Surroundings(
        mode=search.mode,
        samples=profile.samples,
        curve=tuple(
            Point(size_bytes=p.size_bytes, damage=max(0.0, p.predicted_kl), average_bits=p.average_bits)
            for p in points
        ),
        knee=next((index for index, p in enumerate(points) if p.knee), 0),
        uniform={bits: point(np.full(len(choice), index)) for bits, index in uniform.items()},
        here=here,
        narrower=tuple(narrower[index] for index in layers),
        wider=tuple(wider[index] for index in layers),
        pairs=_pairs(search, choice, order),
        sweep=explored(
            search, points, (choice, here), order=layers, uniform=uniform, profile_file=profile_file
        ),
        heads=profile.heads,
        unit=search.score.unit,
        caveat=_caveat(plan, profile),
    )


def _caveat(plan: Plan, profile: Profile) -> str:
    """Whether the plan's weights become other codes than those that the profile measured."""
    if (plan.rounding, plan.block) == (profile.rounding, profile.block):
        return ""
    return (
        f"The profile was measured with {_coding(profile.rounding, profile.block)}, the plan is made with "
        f"{_coding(plan.rounding, plan.block)}: predictions from the profile are of the former."
    )


def _coding(rounding: str, block: int | None) -> str:
    codes = _CODES.get(rounding, f"weights in the form {rounding}")
    return codes if block is None else f"{codes}, {block} weights to a scale"


def _search(plan: Plan, profile: Profile, order: list[int], choice: np.ndarray, seed: int) -> Search:
    """The search that the plan came from, without its limits.

    Where patterns of its pins and ties do not speak of this profile's names, or the plan was changed since, they are
    left out.
    """
    free = dataclasses.replace(asked(plan, profile), budget=None, seed=seed)
    unruled = dataclasses.replace(free, pins=(), ties=())
    if any(
        layer.name != profile.places[index].name for layer, index in zip(plan.layers, order, strict=False)
    ):
        free = unruled
    try:
        search = Search.of(profile, free, solvers.solve)
        next_changes(profile, search.problem, choice, search.interaction)
    except (PlanError, RecordError, BudgetError):
        search = Search.of(profile, unruled, solvers.solve)
    return search


def _steps(search: Search, choice: np.ndarray) -> tuple[list[Step | None], list[Step | None]]:
    """The next width of the weights down and up, for each layer of the profile."""
    options = search.profile.options
    narrower: list[Step | None] = []
    wider: list[Step | None] = []
    changes = next_changes(search.profile, search.problem, choice, search.interaction)
    for here, layer in zip(choice.tolist(), changes, strict=True):
        steps = {
            options[change.option].weight_bits: Step(
                bits=options[change.option].weight_bits, damage=change.damage, bytes=change.size_bytes
            )
            for change in layer
            if dataclasses.replace(options[change.option], weight_bits=options[here].weight_bits)
            == options[here]
        }
        now = options[here].weight_bits
        narrower.append(steps.get(max((bits for bits in steps if bits < now), default=0)))
        wider.append(steps.get(min((bits for bits in steps if bits > now), default=0)))
    return narrower, wider


def _pairs(search: Search, choice: np.ndarray, order: list[int]) -> np.ndarray | None:
    """Interactions of the plan's options in nats, shape (L + P, L + P), in the plan's order."""
    if search.interaction is None:
        return None
    layers, options = search.interaction.linear.shape
    cells = np.arange(layers) * options + choice
    gram = search.interaction.matrix[np.ix_(cells, cells)][np.ix_(order, order)]
    # The quadratic form holds every pair twice.
    pairs: np.ndarray = 2 * gram - np.diag(np.diag(gram))
    return pairs
