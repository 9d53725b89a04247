"""Predicted damage against size: every budget, the plan, and the uniform plans."""

from __future__ import annotations

from collections.abc import Sequence

from lampq.page.axis import linear, logarithmic
from lampq.page.figure import Plot, fold, section
from lampq.page.findings import Findings, Point, Surroundings
from lampq.page.markup import count, number, plain, safe, size

# A curve of thousands of plans looks the same with a few hundred.
_DRAWN = 240
_LISTED = 14
_LEAST = 1e-9


def tradeoff_section(findings: Findings) -> str:
    """The curve; without a profile, how to get it."""
    title = "Damage against size"
    around = findings.around
    if around is None:
        return section(
            "tradeoff",
            title,
            "Every other budget, the uniform plans and the interactions between layers are drawn when the profile "
            "is given too: <code>lampq report plan.json --profile profile.json -o report.html</code>. "
            + _neighbours(findings),
            "",
        )
    return section("tradeoff", title, _lead(findings, around), _chart(findings, around) + _table(around))


def _lead(findings: Findings, around: Surroundings) -> str:
    rivals = [
        (bits, point) for bits, point in around.uniform.items() if point.size_bytes >= around.here.size_bytes
    ]
    text = "Each point of the line is the best plan of its size. "
    if len(around.front) < len(around.curve):
        text += (
            "Plans that cost less to compute, but not fewer bytes, lie above it; the slider shows them too. "
        )
    if rivals:
        bits, rival = min(rivals)
        if rival.damage > around.here.damage > 0:
            text += (
                f"The plan is predicted to lose <b>{plain(rival.damage / around.here.damage, 2)} times less</b> than "
                f"{bits} bits everywhere, {safe(_difference(rival.size_bytes - around.here.size_bytes))}. "
            )
    knee = around.curve[around.knee]
    text += (
        f"The knee lies at {plain(knee.average_bits)} bits: "
        f"below it damage rises steeply, above it bytes buy little. "
    )
    return text + _neighbours(findings) + (f" <b>{safe(around.caveat)}</b>" if around.caveat else "")


def _neighbours(findings: Findings) -> str:
    """The next cheaper and the next dearer plan, where the plan knows them."""
    plan = findings.plan
    known = [
        f"the next {word} plan takes {count(abs(other.total_bytes - plan.total_bytes))} bytes "
        f"{'more' if other.total_bytes > plan.total_bytes else 'less'} and is predicted to lose "
        f"{number(other.predicted_kl)} nats"
        for word, other in (("cheaper", plan.cheaper), ("dearer", plan.dearer))
        if other is not None
    ]
    text = "; ".join(known)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _difference(saved: int) -> str:
    return f"with {size(saved)} less" if saved else "at the same size"


def _chart(findings: Findings, around: Surroundings) -> str:
    plan = findings.plan
    others = [*around.uniform.values(), around.here]
    measured = plan.measured_kl if plan.measured_kl and plan.measured_kl > 0 else None
    damages = [max(_LEAST, point.damage) for point in (*around.curve, *others)]
    sizes = [point.size_bytes for point in (*around.curve, *others)]
    plot = Plot(
        x=linear(sizes, size),
        y=logarithmic(damages + ([measured] if measured else []), lambda value: plain(value, 1)),
        title=(
            f"Predicted damage against size of the model. The plan: {size(around.here.size_bytes)}, "
            f"{number(around.here.damage)} {around.unit}."
        ),
        x_title="size of the model",
        y_title=f"predicted damage, {around.unit} (logarithmic)",
    )
    line = [(point.size_bytes, max(_LEAST, point.damage)) for point in _thinned(around.front, _DRAWN)]
    plot.area(line, "under")
    plot.line(line, "curve")
    knee = around.curve[around.knee]
    plot.dot(knee.size_bytes, max(_LEAST, knee.damage), "knee", f"knee: {_tip(knee)}")
    for bits, point in around.uniform.items():
        plot.dot(
            point.size_bytes,
            max(_LEAST, point.damage),
            "uniform",
            f"{bits} bits for every layer: {_tip(point)}",
        )
        plot.word(
            point.size_bytes, max(_LEAST, point.damage), f"{bits} {'bit' if bits == 1 else 'bits'}", "above"
        )
    here = around.here
    if measured:
        plot.dot(here.size_bytes, measured, "measured", f"this plan, measured: {number(measured)} nats")
    plot.dot(here.size_bytes, max(_LEAST, here.damage), "plan", f"this plan, predicted: {_tip(here)}")
    plot.word(here.size_bytes, max(_LEAST, here.damage), "this plan", "beside strong")
    key = '<li><i class="key plan"></i>this plan</li>'
    if measured:
        key += '<li><i class="key measured"></i>the same, measured</li>'
    key += '<li><i class="key uniform"></i>one width for all layers</li><li><i class="key knee"></i>knee</li>'
    key += '<li class="exploring" hidden><i class="key now"></i>the plan shown now</li>'
    key += '<li class="exploring" hidden><i class="key over"></i>what it is compared with</li>'
    return plot.render(360) + f'<ul class="legend">{key}</ul>'


def _table(around: Surroundings) -> str:
    rows = [("this plan", around.here)]
    rows += [(f"uniform {bits} bits", point) for bits, point in sorted(around.uniform.items())]
    rows += [("best of its size", point) for point in _thinned(around.front, _LISTED)]
    return fold(
        "The figures as a table",
        ("plan", "average bits", "bytes", f"predicted damage, {around.unit}"),
        [
            (what, number(point.average_bits), count(point.size_bytes), number(point.damage))
            for what, point in rows
        ],
    )


def _thinned(curve: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points, evenly over the curve, both ends included."""
    if len(curve) <= most:
        return list(curve)
    return [curve[round(i * (len(curve) - 1) / (most - 1))] for i in range(most)]


def _tip(point: Point) -> str:
    return f"{number(point.average_bits)} bits, {size(point.size_bytes)}, {number(point.damage)}"
