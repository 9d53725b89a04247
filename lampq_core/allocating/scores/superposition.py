"""Score `superposition`: the damage of a plan as a whole, its search begun at the measured damage of single layers."""

from __future__ import annotations

from lampq.core.allocating.scores.kl import kl_scores
from lampq.core.values.profile import Profile
from lampq.core.values.score import AROUND, Score


def _missing(profile: Profile) -> str:
    return "" if profile.interacts else "interactions of layers"


def _remedy(profile: Profile) -> str:
    return "profile the model with --data, keeping them"


SUPERPOSITION = Score(
    name="superposition",
    costs=kl_scores,
    needs=("kl",),
    missing=_missing,
    remedy=_remedy,
    uses_interactions=True,
    improved_by=AROUND,
    products=True,
)
