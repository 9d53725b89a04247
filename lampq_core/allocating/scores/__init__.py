"""Scores: one file each, found by name. Those of other packages are entry points of the group `lampq.scores`."""

from __future__ import annotations

from lampq.core.allocating.scores.error import ERROR
from lampq.core.allocating.scores.fisher import FISHER
from lampq.core.allocating.scores.kl import KL
from lampq.core.allocating.scores.lampq import LAMPQ
from lampq.core.allocating.scores.mixed import MIXED
from lampq.core.allocating.scores.relevance import RELEVANCE_SCORE
from lampq.core.allocating.scores.superposition import SUPERPOSITION
from lampq.core.values.errors import RecordError
from lampq.core.values.profile import Profile
from lampq.core.values.registry import Registry
from lampq.core.values.score import AUTO, Score

SCORES = Registry(
    (SUPERPOSITION, LAMPQ, FISHER, KL, ERROR, RELEVANCE_SCORE, MIXED),
    what="mode",
    group="lampq.scores",
    error=RecordError,
)
# What `auto` takes, the best first. Packages announce scores to be asked for, not to be taken unasked.
_AUTOMATIC = (SUPERPOSITION, KL, FISHER, ERROR)


def score(mode: str | Score) -> Score:
    """The score of a name; a score is itself.

    Raises:
        RecordError: There is none, two packages announce it, or its package cannot be loaded.
    """
    return mode if isinstance(mode, Score) else SCORES.get(mode)


def automatic(profile: Profile) -> Score:
    """The best score that a profile's measurements allow."""
    return next(score for score in _AUTOMATIC if not score.lacks(profile))


def asked_score(mode: str | Score, profile: Profile) -> Score:
    """The score that a request asks of a profile.

    Raises:
        RecordError: There is none of this name.
    """
    return automatic(profile) if mode == AUTO else score(mode)
