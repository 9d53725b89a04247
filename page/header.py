"""The top of the page: what the plan is, in a sentence and a few large figures."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from lampq.page.findings import Findings
from lampq.page.markup import count, number, percent, plain, safe, short, size

_LONGEST_VALUE = 300


def header(findings: Findings) -> str:
    """Title, sentence and figures."""
    plan = findings.plan
    tiles = [
        ("bits", "bits per weight", number(plan.average_bits), _asked(plan.budget)),
        (
            "size",
            "size of the model",
            size(plan.total_bytes),
            f"{plain(findings.float_bytes / plan.total_bytes, 2)} times smaller than float32"
            if plan.total_bytes
            else "",
        ),
    ]
    if plan.predicted_kl is not None:
        proof = (
            "KL to the float model"
            if plan.gap is None
            else f"proven to be within {percent(plan.gap, 1)} of the best"
            if plan.gap >= 0.0005
            else "proven to be the best"
        )
        tiles.append(
            ("predicted", "predicted damage", f"{number(plan.predicted_kl)} <small>nats</small>", proof)
        )
    if plan.measured_kl is not None:
        damage = f"{number(plan.measured_kl)} <small>nats</small>"
        tiles.append(("measured", "measured damage", damage, "on the calibration data"))
    figures = "".join(
        f"<div id={name}-tile><dt>{label}</dt><dd><b>{value}</b><span>{safe(note)}</span></dd></div>"
        for name, label, value, note in tiles
    )
    return (
        f'<header><p class="brand">{_LAMP}lampq</p><h1>{safe(title(findings))}</h1>'
        f'<p class="subtitle">{_sentence(findings)}</p><dl class="tiles">{figures}</dl></header>'
    )


def title(findings: Findings) -> str:
    """The model's name as the plan knows it."""
    return short(str(findings.plan.provenance.get("model") or "Bit plan"), 80)


def _sentence(findings: Findings) -> str:
    plan = findings.plan
    widths = sorted({layer.weight_bits for layer in plan.layers})
    spread = (
        f"{widths[0]} to {widths[-1]} bits"
        if len(widths) > 1
        else f"{widths[0]} {'bit' if widths[0] == 1 else 'bits'} everywhere"
    )
    return (
        f"{count(len(plan.layers))} {'layer' if len(plan.layers) == 1 else 'layers'}, "
        f"{count(findings.weights)} weights, {spread}. Chosen by <b>{safe(short(plan.mode, 40))}</b>"
        + (
            f", found by <b>{safe(short(plan.solver, 40))}</b>."
            if plan.solver not in ("", plan.mode)
            else "."
        )
    )


def _asked(budget: Mapping[str, Any]) -> str:
    """What was asked for, where it is a single figure; the foot of the page has the rest."""
    parts = []
    for key, words in (("average_bits", "{}"), ("size_bytes", "{}"), ("max_kl", "{} nats")):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            value = float(budget[key])
            parts.append(words.format(size(value) if key == "size_bytes" else plain(value)))
    return f"at most {' and '.join(parts)} asked for" if parts else ""


def footer(findings: Findings) -> str:
    """Notes, and where the plan comes from."""
    plan = findings.plan
    notes = "".join(f"<li>{safe(short(note, _LONGEST_VALUE))}" for note in plan.notes[:50])
    facts = "".join(
        f"<div><dt>{safe(short(key, 60))}</dt><dd>{safe(short(value, _LONGEST_VALUE))}</dd></div>"
        for key, value in [*_flat(plan.budget, "asked."), *_flat(plan.provenance)][:80]
    )
    return (
        "<footer>"
        + (f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "")
        + (
            f'<details><summary>Where this plan comes from</summary><dl class="facts">{facts}</dl></details>'
            if facts
            else ""
        )
        + "<p>Damage is the KL divergence from the float model’s output, in nats, averaged over the calibration "
        "samples. Made by lampq; this page loads nothing from anywhere.</p></footer>"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and prefix.count(".") < 3:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            pairs.append((f"{prefix}{key}", text))
    return pairs


# A lamp, drawn here: bulb, glow, socket.
_LAMP = (
    '<svg class="lamp" viewBox="0 0 24 24" aria-hidden="true"><path class="glow" d="M12 2a7 7 0 0 0-4 12.7V17h8'
    'v-2.3A7 7 0 0 0 12 2z"/><path class="socket" d="M9 19h6M10 21.5h4"/></svg>'
)
