"""What plans are made by: how much quantizing each layer is taken to damage, and what follows from that."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lampq.core.values.errors import RecordError
from lampq.core.values.recipe import Recipe

if TYPE_CHECKING:
    from lampq.core.values.batch import Batch
    from lampq.core.values.profile import Profile

AUTO = "auto"
"""Stands for the best score that a profile allows."""
NATS = "nats"
"""Unit of damage: KL divergence from the float model. Scores in another unit rank plans and predict nothing."""
AROUND, SWAPS = "around", "swaps"
"""How a plan is improved with the model at hand: by rounds that measure around it, or by swaps of single bits."""
_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)
# What plans without a score say, and what stands for another.
_RESERVED = (AUTO, "uniform")


def _nothing(profile: Profile) -> str:
    return ""


def _none(profile: Profile) -> tuple[str, ...]:
    return ()


def _whole(profile: Profile) -> Profile:
    return profile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Score:
    """A score. L layers, J options.

    Attributes:
        name: What plans, requests and the command line call it.
        costs: Damage of single layers from a profile and the recipe of the request, finite, at least 0, shape (L, J).
        unit: What `costs` counts. In `nats` plans have a predicted damage, a bound and neighbours, and a largest KL
            can be asked for.
        needs: Tables of the profile that it is made of.
        measure: Adds tables of its own to a profile, from the model that was profiled and the calibration inputs; None
            where others measure all it needs.
        missing: What else a profile lacks for it, as a noun; empty where that is nothing.
        remedy: What to do where something is missing; None where `measure` or the user adds it.
        uses_interactions: Whether plans are predicted as a whole (`core.measuring.interaction`), the search beginning
            at the sum of `costs`; otherwise their damage is that sum.
        improved_by: `around`, `swaps`, or empty: plans are not improved.
        default_pins: Pins that it brings along, which those of the user override.
        view: The part of a profile that it sees.
        notes: What a reader of its plans should know of a profile.
        products: Whether it knows what rounding the factors of products damages.
    """

    name: str
    costs: Callable[[Profile, Recipe], np.ndarray]
    unit: str = NATS
    needs: tuple[str, ...] = ()
    measure: Callable[[Any, Profile, Batch], Profile] | None = None
    missing: Callable[[Profile], str] = _nothing
    remedy: Callable[[Profile], str] | None = None
    uses_interactions: bool = False
    improved_by: str = ""
    default_pins: Callable[[Profile], tuple[str, ...]] = _none
    view: Callable[[Profile], Profile] = _whole
    notes: Callable[[Profile], tuple[str, ...]] = _none
    products: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise RecordError(
                f"score {self.name!r}: a name has letters, digits, points and dashes and is neither "
                f"{' nor '.join(_RESERVED)}"
            )
        if self.improved_by not in ("", AROUND, SWAPS):
            raise RecordError(f"score {self.name}: improved by {self.improved_by!r}, not {AROUND} or {SWAPS}")

    @property
    def in_nats(self) -> bool:
        """Whether it predicts damage, so that predicted and measured figures compare."""
        return self.unit == NATS

    def lacks(self, profile: Profile) -> str:
        """What a profile lacks for it, as a noun; empty where it has all."""
        absent = next((name for name in self.needs if name not in profile.tables), None)
        return self.missing(profile) if absent is None else f"the table {absent}"

    def check(self, profile: Profile) -> None:
        """Stop where a profile lacks something.

        Raises:
            RecordError: It does; says what, and what to do.
        """
        if profile.products and not self.products:
            raise RecordError(
                f"mode {self.name} knows layers alone, and the profile has products of activations too; take mode "
                f"superposition, kl or fisher, or profile without --sites all"
            )
        lack = self.lacks(profile)
        if lack:
            raise RecordError(
                f"mode {self.name} needs {lack}, which the profile lacks; {self._remedy(profile)}"
            )

    def _remedy(self, profile: Profile) -> str:
        if self.remedy is not None:
            return self.remedy(profile)
        if self.measure is not None:
            return f"profile the model with data and --score {self.name}"
        return "measure it with the model and add it with Profile.with_table"


def name_of(mode: str | Score) -> str:
    """The name of a score that is given as one or by name."""
    return mode.name if isinstance(mode, Score) else mode
