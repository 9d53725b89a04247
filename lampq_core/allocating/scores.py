"""Predicted damage of every option of every layer, in nats: the costs that allocation adds up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.modes import SUPERPOSITION
from lampq.core.values.option_order import running_minimum
from lampq.core.values.profile import Profile
from lampq.core.values.recipe import PUBLISHED, Recipe

# Second-order theory ends where the error is no longer small; below this floor a type scale means nothing.
_SMALLEST_SCALE = 1e-12


def kl_scores(profile: Profile) -> np.ndarray:
    """Measured single-layer damage, nats, shape (L, J).

    Raises:
        RecordError: The profile was made without data.
    """
    if profile.kl is None:
        raise RecordError("mode kl needs measured damage; profile the model with --data")
    return profile.kl.copy()


def fisher_scores(profile: Profile) -> np.ndarray:
    """Error-aware Fisher score, nats, shape (L, J): E_n[(sum g dY)^2] / 2 where the profile has it, which counts
    rounded inputs too, else tr(F) / n * ||dW||^2 / 2.

    The latter is the second-order expansion of the KL divergence with the Fisher information taken as isotropic within
    a layer (the weighting of HAWQ-V2, arXiv:1911.03852, with the Fisher trace in place of the Hessian's).

    Raises:
        RecordError: The profile holds no Fisher traces, or several input widths and no joint score.
    """
    if profile.joint_fisher is not None:
        return profile.joint_fisher.copy()
    _refuse_pairs(profile, "fisher")
    return 0.5 * (_traces(profile) / profile.sizes)[:, None] * profile.weight_error


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
        RecordError: Traces or measurements are missing.
    """
    trace = _traces(profile)
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
    if profile.kl is None:
        raise RecordError("mode lampq measures its type scale on data; profile the model with --data")
    if recipe.type_scale == "kl":
        return profile.kl[:, option]
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


def error_scores(profile: Profile) -> np.ndarray:
    """Relative weight error ||dW||^2 / ||W||^2, shape (L, J): all a profile without data can offer.

    It is no damage in nats and ranks layers poorly (Spearman 0.2 to 0.3 with measured damage), but it never
    needs a model or data.
    """
    _refuse_pairs(profile, "error")
    power = np.array([layer.weight.count * layer.weight.second_moment.sum() for layer in profile.layers])
    return profile.weight_error / np.maximum(power, np.finfo(np.float64).tiny)[:, None]


MODES: dict[str, Callable[[Profile], np.ndarray]] = {
    "lampq": lampq_scores,
    "fisher": fisher_scores,
    "kl": kl_scores,
    "error": error_scores,
}


def automatic_mode(profile: Profile) -> str:
    """The best mode that the profile's measurements allow."""
    if profile.interacts:
        return SUPERPOSITION
    if profile.kl is not None:
        return "kl"
    if all(layer.fisher is not None for layer in profile.layers):
        return "fisher"
    return "error"


def predicted_damage(
    profile: Profile, mode: str, recipe: Recipe = PUBLISHED
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Scores of a mode made non-increasing in the widths of weights and inputs.

    More bits can measure slightly worse by chance; left alone, a budget that cannot be used up would then prefer
    fewer bits. The running minimum repairs that.

    Returns:
        The scores, shape (L, J), +inf where the format cannot store the option, and the names of the layers that
        were repaired.

    Raises:
        RecordError: The mode is unknown, its measurements are missing, or a score is not finite.
    """
    if mode not in MODES:
        raise RecordError(f"mode {mode!r} is none of {', '.join(MODES)}")
    scores = lampq_scores(profile, recipe) if mode == "lampq" else MODES[mode](profile)
    if not np.isfinite(scores).all() or (scores < 0).any():
        bad = int(np.argwhere(~(np.isfinite(scores) & (scores >= 0)))[0, 0])
        raise RecordError(
            f"mode {mode}: the score of layer {profile.layers[bad].name} is not a finite damage"
        )
    available = profile.available
    smooth = running_minimum(np.where(available, scores, np.inf), profile.options)
    # Differences on the level of rounding are not worth a word.
    excess = np.where(available, scores - np.where(available, smooth, 0), 0)
    repaired = excess.max(axis=1) > 0.01 * scores.max(axis=1)
    smooth[~available] = np.inf
    return smooth, tuple(layer.name for layer, flag in zip(profile.layers, repaired, strict=True) if flag)


def _refuse_pairs(profile: Profile, mode: str) -> None:
    """Stop where input widths are to be chosen by a score that does not see them."""
    if len({option.input_bits for option in profile.options}) > 1:
        raise RecordError(
            f"mode {mode} scores weights alone and the profile has several input widths; use mode kl or "
            f"superposition, or leave one input width"
        )


def _traces(profile: Profile) -> np.ndarray:
    missing = [layer.name for layer in profile.layers if layer.fisher is None]
    if missing:
        how = "without --fisher-draws 0" if profile.samples else "with --data"
        raise RecordError(f"no Fisher trace of layer {missing[0]}; profile the model {how}")
    return np.array([layer.fisher for layer in profile.layers], dtype=np.float64)
