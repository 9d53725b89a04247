"""The slider along the curve, and the plans behind it: differences between neighbours, deflated."""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from typing import Any

import numpy as np

from lampq.core.values.factors import factor_bits
from lampq.page.findings import Findings, Surroundings, Sweep
from lampq.page.markup import count

_DIGITS = 4
# Widths that the script unpacks at most, one byte each, and the text that they are packed in.
_MOST_CELLS, _MOST_PACKED = 8_000_000, 150_000

_SEARCHED = "Layers interact here: the search behind this command may end at a plan a little better or worse."


def explorer(findings: Findings) -> str:
    """The controls, shown by the script that they need; nothing without a profile."""
    around = findings.around
    if around is None:
        return ""
    sweep, packed = _packed(findings, around)
    plans, all_plans = len(sweep.points), len(around.sweep.points)
    widths = "".join(
        f'<option value="{bits}">{bits} {"bit" if bits == 1 else "bits"} everywhere'
        for bits in sorted(around.uniform)
    )
    thinned = f" of {count(all_plans)}, evenly spread" if plans < all_plans else ""
    note = "" if around.pairs is None else f'<p class="choices">{_SEARCHED}</p>'
    return (
        '<form class="explorer" id="explorer" aria-label="Explore the plans of the curve" hidden>'
        '<div class="dial"><button type=button id=smaller aria-label="next smaller plan">−</button>'
        f"<input type=range id=slider min=0 max={plans - 1} step=1 value={sweep.start} "
        f'aria-label="Plan along the curve: {count(plans)} plans{thinned}, smallest first">'
        '<button type=button id=larger aria-label="next larger plan">+</button>'
        "<output id=reading aria-live=off></output></div>"
        '<div class="choices"><label>compare with <select id=against><option value="">nothing'
        f"<option value=own>the plan of this report<option value=hold>the plan shown now{widths}</select></label>"
        "<button type=button id=own>back to the plan of this report</button>"
        "<button type=button id=copy>copy the command for this plan</button>"
        "<output id=copied></output></div><code id=command></code>"
        f"{note}<p id=difference aria-live=polite></p><div id=plans hidden>{packed}</div></form>"
    )


def _packed(findings: Findings, around: Surroundings) -> tuple[Sweep, str]:
    """The plans that there is room for, and all that the script needs of them: deflated JSON in base64."""
    most = _MOST_CELLS // len(findings.plan.layers)
    while True:
        sweep = around.sweep.thinned(most)
        text = json.dumps(_values(findings, around, sweep), separators=(",", ":"))
        packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")
        if len(packed) <= _MOST_PACKED or most <= 2:
            return sweep, packed
        most = len(sweep.points) // 2


def _values(findings: Findings, around: Surroundings, sweep: Sweep) -> dict[str, Any]:
    places = [0] * len(findings.plan.layers)
    for place, (_, members) in enumerate(findings.kinds()):
        for index, _ in members:
            places[index] = place
    options = [(option.weight_bits, option.activation_bits, option.rank) for option in sweep.options]
    layers = findings.plan.layers
    damage = sweep.damage
    return {
        "options": options,
        "steps": _steps(sweep.choices, len(options)),
        "bytes": [point.size_bytes for point in sweep.points],
        "damages": [_short(point.damage) for point in sweep.points],
        "operations": sweep.operations,
        "start": sweep.start,
        "weights": [layer.size for layer in layers],
        "factors": [factor_bits(layer.shape, 1) for layer in layers] if findings.has_ranks else None,
        "kinds": places,
        "payload": sweep.payload_bytes.tolist(),
        "alone": None if damage is None else [[_short(value) for value in row] for row in damage.tolist()],
        "uniform": {
            bits: [sweep.uniform[bits], point.size_bytes, _short(point.damage)]
            for bits, point in around.uniform.items()
        },
        "unit": around.unit,
        "command": sweep.command,
        "apply": _apply(findings),
    }


def _steps(choices: np.ndarray, options: int) -> str:
    """One character per plan and layer: by how many options, modulo J, it differs from the plan before.

    Neighbours on the curve differ in a few layers, so nearly all characters are the same.
    """
    steps = np.mod(np.diff(choices.astype(np.int64), axis=0, prepend=0), options)
    return "".join(map(chr, (steps + ord("0")).ravel().tolist()))


def _apply(findings: Findings) -> str:
    """The command for the page's own plan, which is a file already."""
    model = str(findings.plan.provenance.get("model") or "MODEL")
    name, dot, suffix = model.rpartition(".")
    out = f"{name}-lampq{dot}{suffix}" if suffix in ("onnx", "tflite") else "FILE"
    return shlex.join(["lampq", "apply", model, findings.plan_file, "-o", out])


def _short(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
