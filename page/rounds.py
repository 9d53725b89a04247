"""Predicted against measured: what the rounds of search tried and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lampq.core.values.history import Step, Swap
from lampq.page.axis import Axis, linear
from lampq.page.figure import Plot, fold, section
from lampq.page.findings import Findings
from lampq.page.markup import number, percent, plain, safe

# Up to so many steps are drawn one below the other, more of them along an axis.
_FEW = 12
_DRAWN = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """One entry of a plan's history, as far as it can be drawn."""

    what: str
    predicted: float | None
    measured: float
    kept: bool


def rounds_section(findings: Findings) -> str:
    """Prediction and measurement of the plan, and of every round on the way."""
    plan = findings.plan
    tries = _tries(plan.history)[:_DRAWN]
    if plan.measured_kl is None and not tries:
        return section(
            "rounds",
            "Predicted against measured",
            "This plan was made from a profile alone, so its damage is predicted and was not measured. "
            "<code>lampq quantize</code> measures plans as it searches; <code>lampq eval</code> measures a model.",
            "",
        )
    few = len(tries) <= _FEW
    body = _pairs(findings, tries) if few else _chart(tries) + _table(tries)
    return section("rounds", "Predicted against measured", _lead(findings, tries), body)


def _lead(findings: Findings, tries: Sequence[_Try]) -> str:
    plan = findings.plan
    text = ""
    if plan.measured_kl is not None:
        text = f"On the calibration data the plan measures <b>{number(plan.measured_kl)} nats</b>"
        if plan.predicted_kl:
            off = plan.measured_kl - plan.predicted_kl
            side = "more" if off > 0 else "less"
            text += f", {percent(abs(off), plan.predicted_kl)} {side} than the {number(plan.predicted_kl)} predicted"
        text += ". "
    if tries:
        kept = sum(entry.kept for entry in tries)
        text += f"{len(tries)} {'step' if len(tries) == 1 else 'steps'} of the search, {kept} kept."
    return text


def _pairs(findings: Findings, tries: Sequence[_Try]) -> str:
    """A row for the plan and each step: what was predicted, what was measured, and the way between them."""
    plan = findings.plan
    rows = [("this plan", plan.predicted_kl, plan.measured_kl, True)] if plan.measured_kl is not None else []
    rows += [
        (f"{entry.what}{'' if entry.kept else ', not kept'}", entry.predicted, entry.measured, entry.kept)
        for entry in tries
    ]
    scale = linear([value for row in rows for value in row[1:3] if value is not None], plain, zero=True)
    lines = "".join(
        f"<tr><th scope=row>{safe(what)}<td>{number(predicted)}<td>{number(measured)}"
        f'<td class="track">{_track(scale, predicted, measured, kept)}'
        for what, predicted, measured, kept in rows
    )
    ticks = "".join(
        f'<span style="left:{100 * scale.place(tick):.1f}%">{plain(tick)}</span>' for tick in scale.ticks
    )
    return (
        '<table class="figures pairs" aria-label="Predicted and measured"><thead><tr><th scope=col>step'
        '<th scope=col><i class="key uniform"></i>predicted'
        '<th scope=col><i class="key measured"></i>measured<th scope=col class="track">nats<tbody>'
        f'{lines}<tr aria-hidden="true"><th><td><td><td class="track ticks"><div>{ticks}</div></table>'
    )


def _track(scale: Axis, predicted: float | None, measured: float | None, kept: bool) -> str:
    marks = ""
    ends = [100 * scale.place(value) for value in (predicted, measured) if value is not None]
    if len(ends) == 2:
        marks += f'<i class="way" style="left:{min(ends):.1f}%;width:{max(ends) - min(ends):.1f}%"></i>'
    if predicted is not None:
        marks += f'<i class="spot uniform" style="left:{100 * scale.place(predicted):.1f}%"></i>'
    if measured is not None:
        style = "measured" if kept else "refused"
        marks += f'<i class="spot {style}" style="left:{100 * scale.place(measured):.1f}%"></i>'
    return f'<div aria-hidden="true">{marks}</div>'


def _chart(tries: Sequence[_Try]) -> str:
    values = [entry.measured for entry in tries] + [
        entry.predicted for entry in tries if entry.predicted is not None
    ]
    last = max(1, len(tries) - 1)
    numbers = range(0, len(tries), max(1, math.ceil(len(tries) / 12)))
    plot = Plot(
        x=Axis(
            low=-0.03 * last,
            high=1.03 * last,
            ticks=tuple(map(float, numbers)),
            label=lambda place: str(round(place) + 1),
        ),
        y=linear(values, plain, zero=True),
        title=f"Measured damage of {len(tries)} steps of the search, from {number(tries[0].measured)} nats to "
        f"{number(min(entry.measured for entry in tries))} at best.",
        x_title="step of the search",
        y_title="damage, nats",
    )
    plot.line([(i, entry.measured) for i, entry in enumerate(tries) if entry.kept], "measured-line")
    for i, entry in enumerate(tries):
        if entry.predicted is not None:
            plot.dot(i, entry.predicted, "uniform", f"{entry.what}: predicted {number(entry.predicted)} nats")
        plot.dot(
            i,
            entry.measured,
            "measured" if entry.kept else "refused",
            f"{entry.what}: measured {number(entry.measured)} nats, {'kept' if entry.kept else 'not kept'}",
        )
    key = '<li><i class="key measured"></i>measured and kept</li>'
    if not all(entry.kept for entry in tries):
        key += '<li><i class="key refused"></i>measured, not kept</li>'
    if any(entry.predicted is not None for entry in tries):
        key += '<li><i class="key uniform"></i>predicted</li>'
    return plot.render(220) + f'<ul class="legend">{key}</ul>'


def _table(tries: Sequence[_Try]) -> str:
    return fold(
        "The steps as a table",
        ("step", "predicted, nats", "measured, nats", "kept"),
        [
            (entry.what, number(entry.predicted), number(entry.measured), "yes" if entry.kept else "no")
            for entry in tries
        ],
    )


def _tries(history: Sequence[Step]) -> list[_Try]:
    """Rounds around a plan and swaps of two layers, as they are drawn."""
    tries: list[_Try] = []
    rounds = 0
    for step in history:
        if isinstance(step, Swap):
            tries.append(
                _Try(what=f"swap {len(tries) + 1}", predicted=None, measured=step.kl, kept=step.kept)
            )
            continue
        what = f"round {rounds}" if step.number else "the result measured" if tries else "start"
        rounds += 1
        tries.append(
            _Try(what=what, predicted=_drawn(step.predicted), measured=step.measured, kept=step.accepted)
        )
    return tries


def _drawn(predicted: float | None) -> float | None:
    """A prediction, where an axis of damage has a place for it."""
    return predicted if predicted is not None and predicted >= 0 else None
