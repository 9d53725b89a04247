"""Score `fisher`: the second order of the damage, from gradients."""

from __future__ import annotations

import numpy as np

from lampq.core.allocating.scores.traces import how_to_measure, missing_traces, traces
from lampq.core.allocating.scores.weights_alone import refuse_input_widths
from lampq.core.values.profile import Profile
from lampq.core.values.recipe import PUBLISHED, Recipe
from lampq.core.values.rounding_kinds import INPUTS
from lampq.core.values.score import Score

_NAME = "fisher"


def fisher_scores(profile: Profile, recipe: Recipe = PUBLISHED) -> np.ndarray:
    """Error-aware Fisher score, nats, shape (L, J): E_n[(sum g dY)^2] / 2 where the profile has it, which counts
    rounded inputs too, else tr(F) / n * ||dW||^2 / 2.

    The latter is the second-order expansion of the KL divergence with the Fisher information taken as isotropic within
    a layer (the weighting of HAWQ-V2, arXiv:1911.03852, with the Fisher trace in place of the Hessian's).

    Raises:
        RecordError: The profile has several input widths and no joint score.
    """
    if profile.joint_fisher is not None:
        return profile.joint_fisher.copy()
    refuse_input_widths(profile, _NAME)
    return 0.5 * (traces(profile) / profile.sizes)[:, None] * profile.weight_error


def _missing(profile: Profile) -> str:
    return "" if profile.joint_fisher is not None else missing_traces(profile)


def _notes(profile: Profile) -> tuple[str, ...]:
    if profile.rounding != INPUTS or profile.joint_fisher is not None:
        return ()
    return (
        "mode fisher counts errors of weights; codes chosen for the layers' inputs lose less than it predicts",
    )


FISHER = Score(
    name=_NAME, costs=fisher_scores, missing=_missing, remedy=how_to_measure, notes=_notes, products=True
)
