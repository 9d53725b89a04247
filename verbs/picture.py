"""Plans, profiles, evaluations and curves as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lampq.core.planning.tradeoff import Point
from lampq.core.values.errors import RecordError
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.verbs import sweep
from lampq.verbs.canvas import canvas
from lampq.verbs.evaluate import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Names below bars can be read up to so many.
_NAMED = 60


def plot(what: Plan | Profile | Evaluation | Sequence[Point]) -> Figure:
    """A matplotlib figure, drawn without a display; a notebook shows it.

    Args:
        what: A plan (bits of each layer), a profile (damage of each layer at each width), an evaluation (damage of each
            output), or what `lampq.sweep` gave (damage against size).

    Raises:
        MissingExtraError: matplotlib is not installed.
        RecordError: There is no picture of it.
    """
    if isinstance(what, Plan):
        return _bits(what)
    if isinstance(what, Profile):
        return _damage(what)
    if isinstance(what, Evaluation):
        return _heads(what)
    if isinstance(what, Sequence) and what and all(isinstance(point, Point) for point in what):
        return sweep.plot(what)
    raise RecordError(
        f"{type(what).__name__}: there are pictures of a plan, a profile, an evaluation and a sweep"
    )


def _bits(plan: Plan) -> Figure:
    figure = canvas(max(6.4, min(20, 0.22 * len(plan.layers))))
    axes = figure.subplots()
    axes.bar(range(len(plan.layers)), [layer.weight_bits for layer in plan.layers], color="#b55a20")
    axes.set_ylabel("bits")
    axes.set_title(f"{plan.average_bits:.4g} bits on average, {plan.total_bytes:,} bytes")
    _name(axes.xaxis, [layer.name for layer in plan.layers], rotation=90)
    return figure


def _damage(profile: Profile) -> Figure:
    known = profile.array("kl")
    values = profile.weight_error if known is None else known
    figure = canvas()
    axes = figure.subplots()
    shown = np.where(profile.available & (values > 0), values, np.nan)
    image = axes.imshow(np.log10(shown), aspect="auto", cmap="magma")
    what = "squared error of the weights" if known is None else "damage alone, nats"
    figure.colorbar(image, label=f"log10 of {what}")
    axes.set_xticks(range(len(profile.options)), [option.to_text() for option in profile.options])
    _name(axes.yaxis, [layer.name for layer in profile.layers])
    return figure


def _heads(evaluation: Evaluation) -> Figure:
    figure = canvas()
    axes = figure.subplots()
    values: dict[str, float | None] = {head.name: head.kl for head in evaluation.heads}
    values = values or {"all outputs": evaluation.kl}
    axes.barh(list(values), [value or 0.0 for value in values.values()], color="#0d766e")
    axes.set_xlabel("damage, nats")
    if evaluation.top1 is not None:
        axes.set_title(f"top-1 {evaluation.top1:.2%}")
    return figure


def _name(axis: Any, names: Sequence[str], **style: Any) -> None:
    if len(names) <= _NAMED:
        axis.set_ticks(range(len(names)), names, fontsize=7, **style)
