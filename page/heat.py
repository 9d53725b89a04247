"""How layers act on each other: a map of all pairs, and the strongest of them by name."""

from __future__ import annotations

import base64

import numpy as np

from lampq.page.figure import section
from lampq.page.findings import Findings
from lampq.page.markup import name, number, percent, safe, short, signed
from lampq.page.png import encode

# Larger models are averaged over neighbouring layers: pixels finer than this tell nobody anything.
_MOST = 160
_STRONGEST = 6
# Amber where two layers hurt each other, teal where they cancel, grey on the diagonal: a layer with itself.
_WORSE, _BETTER, _OWN = (201, 100, 20), (13, 130, 120), (128, 128, 128)
# Opacity rises as this power of the magnitude, so that weak pairs can be seen beside strong ones.
_POWER = 0.6
_LEVELS = 80


def heat_section(findings: Findings) -> str:
    """The map; nothing where the profile kept no logit differences."""
    around = findings.around
    if around is None or around.pairs is None or len(around.pairs) < 2:
        return ""
    pairs = around.pairs
    off = pairs - np.diag(np.diag(pairs))
    largest = float(np.abs(off).max())
    picture, blocks = _picture(pairs, largest)
    places = findings.places
    bounds = [f"{short(places[start], 40)}" for start, _ in blocks]
    labels = [
        first if end - start == 1 else f"{first} … {short(places[end - 1], 40)}"
        for first, (start, end) in zip(bounds, blocks, strict=True)
    ]
    title = f"Map of the interactions of {_what(findings)}, in model order from the top left corner"
    body = (
        '<div class="heat"><figure><div class="heat-frame">'
        '<span class="corner first" aria-hidden="true">first layer</span>'
        f'<img id="heat" src="data:image/png;base64,{picture}" alt="{safe(title)}" width="{len(blocks)}" '
        f'height="{len(blocks)}" data-largest="{largest:.6e}" data-power="{_POWER}">'
        f'<span class="corner last" aria-hidden="true">last {"product" if findings.plan.products else "layer"}</span>'
        "</div>"
        f'<figcaption><span class="ramp" aria-hidden="true"></span><span class="ramp-ends"><span>cancel '
        f"{number(-largest, 2)}</span><span>0</span><span>add {signed(largest)}</span></span>"
        '<output id="heat-readout" aria-live="off">Nats for each pair.</output>'
        f'</figcaption></figure><div class="strongest">{_strongest(findings, off, sign=1)}'
        f"{_strongest(findings, off, sign=-1)}</div></div>"
        f'<ol id="heat-names" hidden>{"".join(f"<li>{safe(label)}" for label in labels)}</ol>'
    )
    return section("interactions", "How layers act on each other", _lead(pairs, off), body)


def _what(findings: Findings) -> str:
    products = len(findings.plan.products)
    return f"{len(findings.plan.layers)} layers" + (
        f" and the {products} products behind them" if products else ""
    )


def _lead(pairs: np.ndarray, off: np.ndarray) -> str:
    alone, together = float(np.trace(pairs)), float(off.sum()) / 2
    if alone <= 0:
        return "Pairs of layers that make each other’s damage larger or smaller."
    effect = "more" if together > 0 else "less"
    return (
        f"Quantized together, the layers lose <b>{percent(abs(together), alone)} {effect}</b> than the sum of what "
        "each loses alone. Amber pairs make each other worse, teal pairs cancel in part; grey is a layer with itself."
    )


def _picture(pairs: np.ndarray, largest: float) -> tuple[str, list[tuple[int, int]]]:
    """The map as base64 PNG, and the layers (from, to) of each of its rows."""
    layers = len(pairs)
    edges = np.unique(np.linspace(0, layers, min(layers, _MOST) + 1).round().astype(int))
    blocks = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    sums = np.add.reduceat(np.add.reduceat(pairs, edges[:-1], axis=0), edges[:-1], axis=1)
    counts = np.diff(edges)
    mean = sums / np.outer(counts, counts)
    scale = largest or 1.0
    level = np.ceil(np.clip(np.abs(mean) / scale, 0, 1) ** _POWER * _LEVELS).astype(np.uint8)
    indices = np.where(mean < 0, _LEVELS + level, level)
    indices[mean == 0] = 0
    alone = np.diag(mean) / max(float(np.diag(mean).max()), np.finfo(float).tiny)
    own = np.ceil(np.clip(alone, 0, 1) ** _POWER * _LEVELS).astype(np.uint8)
    if layers <= _MOST:
        np.fill_diagonal(indices, 2 * _LEVELS + own)
    opacity = (np.arange(1, _LEVELS + 1) * 255 / _LEVELS).round().astype(np.uint8)[:, None]
    ramps = [
        np.hstack([np.tile(np.array(colour, np.uint8), (_LEVELS, 1)), opacity])
        for colour in (_WORSE, _BETTER, _OWN)
    ]
    palette = np.vstack([np.zeros((1, 4), np.uint8), *ramps])
    return base64.b64encode(encode(indices.astype(np.uint8), palette)).decode("ascii"), blocks


def _strongest(findings: Findings, off: np.ndarray, *, sign: int) -> str:
    """The pairs that add or cancel most."""
    rows, columns = np.triu_indices(len(off), 1)
    values = sign * off[rows, columns]
    best = [int(i) for i in np.argsort(-values, kind="stable")[:_STRONGEST] if values[i] > 0]
    if not best:
        return ""
    places = findings.places
    body = "".join(
        f"<tr><th scope=row>{name(places[rows[i]])}<br>{name(places[columns[i]])}"
        f"<td>{signed(float(off[rows[i], columns[i]]))}"
        for i in best
    )
    title = "Make each other worse" if sign > 0 else "Cancel in part"
    return (
        f'<table class="figures"><caption>{title}</caption><thead><tr><th scope=col>pair<th scope=col>nats'
        f"<tbody>{body}</table>"
    )
