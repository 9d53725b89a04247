"""Bits per layer: one strip for each kind of layer, all on the model's own axis from first layer to last."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from statistics import median

from lampq.core.values.plan_layer import PlanLayer
from lampq.page.figure import section
from lampq.page.findings import Findings
from lampq.page.markup import count, name, percent, plain, safe, short

# From this many layers on, bars are too thin for a number above and a tip each.
_MANY = 160


def bits_section(findings: Findings) -> str:
    """The first chart of the page."""
    layers = findings.plan.layers
    kinds = list(findings.kinds())
    widths = {kind: _bar_width([index for index, _ in members]) for kind, members in kinds}
    usual = median([width for width in widths.values() if width] or [1])
    span = max(members[-1][0] + (widths[kind] or usual) for kind, members in kinds)
    top = findings.top
    strips = "".join(
        _strip(
            kind,
            members,
            widths[kind] or usual,
            span,
            top,
            detailed=len(layers) <= _MANY,
            inputs=findings.inputs_vary,
        )
        for kind, members in kinds
    )
    body = (
        f'<div class="strips" role="group" aria-label="Width of the weights of each layer, by kind">{strips}</div>'
        f"{_legend(findings)}"
    )
    return section("bits", "Bits per layer", _lead(findings), body, of_this_plan=True)


def _lead(findings: Findings) -> str:
    means = sorted((_mean([layer for _, layer in members]), kind) for kind, members in findings.kinds())
    if len(means) == 1 or means[0][0] == means[-1][0]:
        return f"Every kind of layer averages {plain(means[0][0])} bits. Left is the model’s input, right its output."
    return (
        f"<b>{safe(means[-1][1])}</b> gets the most, {plain(means[-1][0])} bits on average, and "
        f"<b>{safe(means[0][1])}</b> the fewest, {plain(means[0][0])}. "
        f"Left is the model’s input, right its output."
    )


def _strip(
    kind: str,
    members: list[tuple[int, PlanLayer]],
    width: float,
    span: float,
    top: int,
    *,
    detailed: bool,
    inputs: bool,
) -> str:
    mean = _mean([layer for _, layer in members])
    title = f"{kind}: {count(len(members))} {_layers(len(members))}, {plain(mean)} bits on average"
    if detailed:
        bars = "".join(
            f'<rect class="b{layer.weight_bits}" x="{index + 0.06 * width:.2f}" y="{top - layer.weight_bits}" '
            f'width="{0.88 * width:.2f}" height="{layer.weight_bits}" data-row="{index + 1}">'
            f"<title>{safe(short(layer.name))}: {layer.weight_bits} bits</title></rect>"
            for index, layer in members
        )
        words = "".join(
            f'<span style="left:{100 * (index + width / 2) / span:.2f}%;bottom:{100 * layer.weight_bits / top:.1f}%">'
            f"{layer.weight_bits}</span>"
            for index, layer in members
        )
    else:
        # One path for all bars of a width keeps the page small.
        bars = "".join(
            f'<path class="b{bits}" d="'
            + "".join(
                f"M{index} {top}v-{bits}h{width:g}v{bits}z"
                for index, layer in members
                if layer.weight_bits == bits
            )
            + '"/>'
            for bits in sorted({layer.weight_bits for _, layer in members})
        )
        words = ""
    if inputs:
        d = "".join(
            f"M{index} {top - layer.activation_bits}h{width:g}"
            for index, layer in members
            if layer.activation_bits is not None
        )
        bars += f'<path class="inputs" d="{d}"/>'
    return (
        f'<div class="strip"><div class="strip-name"><b>{name(kind)}</b> <span>{plain(mean)} bits</span></div>'
        f'<div class="bars" data-bar="{width:g}">'
        f'<svg viewBox="0 0 {span:g} {top}" preserveAspectRatio="none" role="img">'
        f"<title>{safe(title)}</title>{bars}"
        f'<path class="axis" d="M0 {top}H{span:g}"/></svg><div aria-hidden="true">{words}</div></div></div>'
    )


def _legend(findings: Findings) -> str:
    weights: Counter[int] = Counter()
    number_of: Counter[int] = Counter()
    for layer in findings.plan.layers:
        weights[layer.weight_bits] += layer.size
        number_of[layer.weight_bits] += 1
    chips = "".join(
        f'<li><i class="b{bits}"></i><b>{bits} {"bit" if bits == 1 else "bits"}</b> '
        f"<span>{count(number_of[bits])} {_layers(number_of[bits])}, "
        f"{percent(weights[bits], findings.weights)} of weights</span></li>"
        for bits in sorted(number_of)
    )
    legend = f'<ul class="legend" aria-label="Layers of each width">{chips}</ul>'
    if findings.inputs_vary:
        legend += '<p class="key-of-inputs"><i></i> width of a layer’s input; none where it stays float</p>'
    return legend


def _bar_width(places: list[int]) -> float | None:
    """Room from one layer of a kind to the next, so that bars fill their strip; None for a single layer."""
    gaps = [after - before for before, after in pairwise(places)]
    return min(gaps, default=None)


def _mean(layers: list[PlanLayer]) -> float:
    return sum(layer.size * layer.weight_bits for layer in layers) / sum(layer.size for layer in layers)


def _layers(number_of: int) -> str:
    return "layer" if number_of == 1 else "layers"
