"""Why each layer has its width: a table that can be sorted and filtered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from lampq.core.values.plan_layer import PlanLayer
from lampq.page.figure import section
from lampq.page.findings import Findings, Step
from lampq.page.markup import count, name, number, safe, short, signed

_WHY = 200
# Tables longer than this scroll within a window of their own.
_TALL = 120


def layers_section(findings: Findings, room: int) -> str:
    """The table, in at most about `room` bytes.

    A model of very many layers first loses the sentences, then the layers with the least damage; the text says so.
    """
    layers = findings.plan.layers
    inputs, quantizers = _has_inputs(findings), _has_quantizers(findings)
    ranks = findings.has_ranks
    reasons = any(layer.why for layer in layers)
    for sentences in (reasons, False):
        rows = [
            _row(findings, index, inputs=inputs, quantizers=quantizers, ranks=ranks, why=sentences)
            for index in range(len(layers))
        ]
        sizes = [len(row.encode()) for row in rows]
        if sum(sizes) <= room:
            break
    note = (
        ""
        if sentences == reasons
        else " The sentences are left out for want of room; the plan file has them."
    )
    shown = list(range(len(layers)))
    if sum(sizes) > room:
        order = sorted(shown, key=lambda index: -(layers[index].predicted_kl or 0.0))
        worst, used = [], 0
        for index in order:
            used += sizes[index]
            if used > room:
                break
            worst.append(index)
        shown = sorted(worst)
        note = f" Shown are the {count(len(worst))} layers of greatest damage; the plan file has all."
    if findings.around:
        note += (
            " <span class=exploring hidden>Narrower, wider and why are of the plan of this report, "
            "whichever the slider shows.</span>"
        )
    columns = _columns(findings, sentences)
    head = "".join(
        f"<th scope=col{f' class={style}' if style else ''}>"
        f'<button type=button title="{safe(tip)}">{safe(title)}</button>'
        for title, style, tip in columns
    )
    body = "".join(rows[index] for index in shown)
    lead = f"{'One' if len(layers) == 1 else f'All {count(len(layers))}'} of them. " + (
        "Damage is what a layer is predicted to lose alone, in nats; <i>narrower</i> and <i>wider</i> are what "
        "the whole plan would lose or gain with that layer at its next width. "
        if findings.around
        else "Damage is what a layer is predicted to lose alone, in nats. "
    )
    window = "scroll tall" if len(layers) > _TALL else "scroll"
    table = (
        f'{_controls(findings)}<div class="{window}" tabindex="0" role="region" aria-label="Layers">'
        f'<table id="layers-table" class="figures layers" aria-labelledby="layers-title">'
        f"<thead><tr>{head}<tbody>{body}</table></div>"
    )
    return section("layers", "Why each layer", lead + note, table)


def _columns(findings: Findings, sentences: bool) -> list[tuple[str, str, str]]:
    """Title, style and explanation of each column."""
    columns = [
        ("#", "", "position in the model"),
        ("layer", "", "name in the model the plan was made from"),
        ("kind", "", "kind of layer"),
        ("weights", "n", "number of weights"),
        ("bits", "n", "width of the weights"),
    ]
    if _has_inputs(findings):
        columns.append(("input", "n", "width of the layer’s input"))
    if _has_quantizers(findings):
        columns.append(("rounded by", "", "quantizer of the layer’s input"))
    if findings.has_ranks:
        columns.append(("rank", "n", "rank of the factors that give back what rounding takes; 0 for none"))
    columns += [
        ("bytes", "n", "codes, scales and factors" if findings.has_ranks else "codes and scales"),
        ("damage", "n", "predicted for this layer alone, nats"),
    ]
    if findings.around:
        columns += [
            ("narrower", "n", "change of the plan’s damage with this layer at its next width down, nats"),
            ("wider", "n", "change of the plan’s damage with this layer at its next width up, nats"),
        ]
    if sentences:
        columns.append(("why", "", "what one width less or more would cost and save"))
    return columns


def _row(findings: Findings, index: int, *, inputs: bool, quantizers: bool, ranks: bool, why: bool) -> str:
    layer: PlanLayer = findings.plan.layers[index]
    cells = [
        f"<td>{index + 1}<th scope=row>{name(layer.name)}<td>{name(layer.kind)}<td>{count(layer.size)}"
        f"<td><b class=b{layer.weight_bits}>{layer.weight_bits}</b>"
    ]
    if inputs:
        cells.append(f"<td>{'–' if layer.activation_bits is None else layer.activation_bits}")
    if quantizers:
        cells.append(f"<td>{'–' if layer.quantizer is None else safe(layer.quantizer.tag)}")
    if ranks:
        cells.append(f"<td>{layer.rank}")
    cells.append(f"<td>{count(layer.payload_bytes)}<td>{number(layer.predicted_kl)}")
    if findings.around:
        cells += [_step(findings.around.narrower[index]), _step(findings.around.wider[index])]
    if why:
        cells.append(f"<td>{safe(short(layer.why, _WHY))}")
    return f"<tr id=l{index + 1}>{''.join(cells)}"


def _step(step: Step | None) -> str:
    return "<td>–" if step is None else f"<td>{signed(step.damage)}"


def _has_inputs(findings: Findings) -> bool:
    return any(inputs is not None for _, inputs in findings.options)


def _has_quantizers(findings: Findings) -> bool:
    return any(layer.quantizer is not None for layer in findings.plan.layers)


def _controls(findings: Findings) -> str:
    kinds = [kind for kind, _ in findings.kinds()]
    widths = sorted({weights for weights, _ in findings.options})
    return (
        '<form class="controls" hidden><label>Find <input id="find" type="search" placeholder="part of a name" '
        f'autocomplete="off"></label>{_select("of-kind", "Kind", kinds, lambda kind: short(kind))}'
        f"{_select('of-width', 'Bits', widths, str)}<output id=shown></output></form>"
    )


_Value = TypeVar("_Value")


def _select(identity: str, label: str, values: Sequence[_Value], text: Callable[[_Value], str]) -> str:
    options = "".join(f"<option>{safe(text(value))}" for value in values)
    return f'<label>{label} <select id="{identity}"><option value="">all{options}</select></label>'
