"""What outputs can be judged as, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lampq.core.values.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoleKind:
    """A role that heads can have.

    Attributes:
        name: What it is called: `NAME=ROLE`.
        fit: From a `Head` and its float outputs, a pair of array and mask for each group of samples, to a
            `core.readouts.role.Role`, or to a phrase that says why these outputs cannot be judged so. None for roles
            of lampq, which `core.readouts.fitting` knows.
    """

    name: str
    fit: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("=: ,"):
            raise RecordError(f"role {self.name!r} cannot be named on a command line; use letters and dashes")
