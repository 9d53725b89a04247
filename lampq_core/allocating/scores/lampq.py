"""Score `lampq`: the published one, with its recipe, its pins and its update."""

from __future__ import annotations

import numpy as np

from lampq.core.allocating.equal_widths import one_width
from lampq.core.allocating.scores.traces import how_to_measure, missing_traces, traces
from lampq.core.values.errors import RecordError
from lampq.core.values.profile import Profile
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.score import SWAPS, Score

# Second-order theory ends where the error is no longer small; below this floor a type scale means nothing.
_SMALLEST_SCALE = 1e-12
# The paper leaves these two kinds out of the search.
_PINNED = ("patch_embed", "head")


def lampq_scores(profile: Profile, recipe: Recipe = PUBLISHED) -> np.ndarray:
    """LampQ's type-aware Fisher score, alpha_t tr(F) gamma^(beta - B), nats, shape (L, J).

    The type scale alpha_t is the mean damage of a few layers of the type quantized to beta bits, one at a time,
    over their type's mean trace; gamma^-B models how damage shrinks with the width (4 is 6.02 dB a bit). Written
    relative to beta bits the score equals the measured damage there on average: nats, unless the recipe counts
    changed predictions.

    Source: Kim et al., AAAI 2026, arXiv:2511.10004, equations of sensitivity and type scale.

    Args:
        profile: Needs Fisher traces and, for the type scale, measurements at `recipe.beta` bits.
        recipe: The choices.

    Raises:
        RecordError: The type scale needs decisions that the profile does not tell.
    """
    trace = traces(profile)
    widths = profile.weight_bits
    at_beta = int(np.abs(widths - recipe.beta).argmin())
    damages = _probe_damage(profile, at_beta, recipe)
    sensitivity = np.empty(len(trace))
    kinds = np.array([layer.kind for layer in profile.layers])
    for kind in dict.fromkeys(kinds):
        members = np.flatnonzero(kinds == kind)
        count = min(recipe.probes, len(members))
        spread = np.linspace(0, len(members) - 1, count).round().astype(int)
        damage = damages[members[spread]].mean()
        mean_trace = trace[members].mean()
        scale = damage / mean_trace if mean_trace > 0 else 0.0
        sensitivity[members] = max(scale, _SMALLEST_SCALE) * trace[members]
    return sensitivity[:, None] * recipe.gamma ** (widths[at_beta] - widths)[None, :].astype(np.float64)


def _probe_damage(profile: Profile, option: int, recipe: Recipe) -> np.ndarray:
    """What quantizing each layer alone does at an option, shape (L,): nats, or the share of changed predictions."""
    if recipe.type_scale == "kl":
        return profile.tables["kl"].array[:, option]
    changed = profile.array("changed")
    if changed is not None:
        return changed[:, option]
    logits, delta = profile.array("logits"), profile.array("logit_delta")
    if logits is None or delta is None:
        raise RecordError(
            "a type scale by accuracy needs outputs that decide something, such as classes, and a profile made with "
            "--measure differences"
        )
    return ((logits + delta[:, option]).argmax(axis=2) != logits.argmax(axis=1)).mean(axis=1)


def _default_pins(profile: Profile) -> tuple[str, ...]:
    if 8 not in profile.weight_bits:
        return ()
    present = {layer.kind for layer in profile.layers}
    return tuple(f"{kind}=8" for kind in _PINNED if kind in present)


LAMPQ = Score(
    name="lampq",
    costs=lampq_scores,
    needs=("kl",),
    missing=missing_traces,
    remedy=how_to_measure,
    improved_by=SWAPS,
    default_pins=_default_pins,
    view=one_width,
)
