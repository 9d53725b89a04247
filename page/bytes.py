"""Where the bytes go, and whether the damage comes from the same place."""

from __future__ import annotations

from typing import Any

from lampq.page.figure import section
from lampq.page.findings import Findings
from lampq.page.markup import count, name, number, percent, safe, size


def bytes_section(findings: Findings) -> str:
    """A bar of the whole file and a row for each kind."""
    plan = findings.plan
    rows = []
    for kind, members in findings.kinds():
        layers = [layer for _, layer in members]
        damages = [layer.predicted_kl for layer in layers]
        weights = sum(layer.size for layer in layers)
        rows.append(
            (
                kind,
                len(layers),
                weights,
                sum(layer.size * layer.weight_bits for layer in layers) / weights,
                sum(layer.payload_bytes for layer in layers),
                None if None in damages else sum(damage for damage in damages if damage is not None),
            )
        )
    known = [row[5] for row in rows if row[5] is not None]
    damage = sum(known) if len(known) == len(rows) else 0.0
    segments = "".join(
        f'<span class="b{round(bits)}" data-kind={place} style="flex-grow:{stored}" '
        f'title="{safe(kind)}: {count(stored)} bytes"><b>{safe(kind)}</b></span>'
        for place, (kind, _, _, bits, stored, _) in enumerate(rows)
        if stored
    )
    if plan.rest_bytes:
        segments += (
            f'<span class="rest" style="flex-grow:{plan.rest_bytes}" '
            f'title="not quantized: {count(plan.rest_bytes)} bytes"><b>not quantized</b></span>'
        )
    bar = (
        '<div class="whole" role="img" aria-label="Share of the bytes by kind; the table below has the figures">'
        f"{segments}</div>"
    )
    body = "".join(
        f"<tr data-kind={place}><th scope=row>{name(kind)}<td>{count(layers)}<td>{count(weights)}<td>{number(bits)}"
        f"<td>{count(stored)}"
        f"<td>{_share(stored, plan.total_bytes, 'bytes')}"
        f"<td>{'–' if known == [] or loss is None else _share(loss, damage, 'loss')}"
        for place, (kind, layers, weights, bits, stored, loss) in enumerate(rows)
    )
    if plan.rest_bytes:
        body += (
            f"<tr data-kind=rest><th scope=row>not quantized<td><td><td><td>{count(plan.rest_bytes)}"
            f"<td>{_share(plan.rest_bytes, plan.total_bytes, 'bytes')}<td>"
        )
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="Bytes by kind">'
        '<table class="figures kinds" aria-labelledby="bytes-title">'
        "<thead><tr><th scope=col>kind<th scope=col>layers<th scope=col>weights<th scope=col>bits"
        f"<th scope=col>bytes<th scope=col>of the bytes<th scope=col>of the damage<tbody>{body}</table></div>"
    )
    return section(
        "bytes", "Where the bytes go", _lead(findings, rows, damage), bar + table, of_this_plan=True
    )


def _lead(findings: Findings, rows: list[tuple[Any, ...]], damage: float) -> str:
    plan = findings.plan
    kind, _, _, _, stored, loss = max(rows, key=lambda row: row[4])
    text = f"<b>{safe(kind)}</b> takes {percent(stored, plan.total_bytes)} of the model’s {size(plan.total_bytes)}"
    if damage and loss is not None:
        text += f" and causes {percent(loss, damage)} of the damage, each layer counted alone"
    if plan.rest_bytes:
        text += f". What the plan does not touch takes {percent(plan.rest_bytes, plan.total_bytes)}"
    return text + "."


def _share(part: float, whole: float, style: str) -> str:
    width = 100 * part / whole if whole else 0
    bar = f'<span class="share {style}"><i style="width:{width:.1f}%"></i></span>'
    return f'{bar}<span class="part">{percent(part, whole)}</span>'
