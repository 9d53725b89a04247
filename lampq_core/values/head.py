"""An output with a role: what it means decides how far it may move, in nats."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lampq.core.values.errors import AdapterError, RecordError
from lampq.core.values.messages import described, listed
from lampq.core.values.registry import Registry
from lampq.core.values.role_kind import RoleKind

CLASSES, PROBABILITIES, VALUES, DIRECTION, IGNORE = (
    "classes",
    "probabilities",
    "values",
    "direction",
    "ignore",
)
ROLES = (CLASSES, PROBABILITIES, VALUES, DIRECTION, IGNORE)
"""One of several along an axis; independent yes or no; numbers on a scale of their own; a vector whose length means
nothing; and what is not judged.
"""
ROLE_KINDS = Registry(
    [RoleKind(name=name) for name in ROLES], what="role", group="lampq.roles", error=RecordError
)
"""Roles by name: those of lampq, those added while it runs, and those that packages announce."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How one output is judged.

    Attributes:
        name: The output, or an inner tensor of the graph.
        role: A name in `ROLE_KINDS`.
        axis: Axis of the classes, channels or coordinates in the output, samples first; negative counts from the
            end, and 0 (the samples) is none. All further axes are positions.
        activated: The output is a probability already: behind a softmax (`classes`) or a sigmoid (`probabilities`).
        mask: Input of shape (samples, positions) that says which positions count, or None: all.
        weight: Factor of its damage in the total.
        reason: Why it has this role, one phrase; empty where the user said so.
    """

    name: str
    role: str
    axis: int = -1
    activated: bool = False
    mask: str | None = None
    weight: float = 1.0
    reason: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLE_KINDS:
            raise RecordError(
                f"output {self.name}: role {self.role!r} is none of {', '.join(ROLE_KINDS.names())}"
            )
        if self.axis == 0:
            raise RecordError(f"output {self.name}: axis 0 holds the samples")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise RecordError(
                f"output {self.name}: weight {self.weight} is not above 0; leave it out as `ignore`"
            )

    @property
    def judged(self) -> bool:
        """Whether it counts at all."""
        return self.role != IGNORE

    def to_json(self) -> dict[str, Any]:
        """For profiles and plans."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Head:
        """Back from `to_json`; fields of later versions are left out.

        Raises:
            RecordError: It is no head.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls(**{key: value for key, value in data.items() if key in known})
        except TypeError as err:
            raise RecordError(f"malformed output ({described(err)})") from err


def judged_of(heads: Sequence[Head], whose: str) -> tuple[Head, ...]:
    """The heads that count, of which there must be one wherever a model is run.

    Raises:
        AdapterError: There is none; says why of each.
    """
    judged = tuple(head for head in heads if head.judged)
    if not judged:
        reasons = [f"{head.name}: {head.reason or head.role}" for head in heads] or ["it has none"]
        raise AdapterError(
            f"{whose} has no output to judge ({listed(reasons, separator='; ')}); name one with --output NAME=ROLE"
        )
    return judged


def summary(heads: Sequence[Head]) -> dict[str, str]:
    """Role, and weight where it is not 1, of every output by name: for people, and for the provenance of results.

    >>> summary([Head(name="boxes", role="values", weight=0.5), Head(name="scores", role="probabilities")])
    {'boxes': 'values:0.5', 'scores': 'probabilities'}
    """
    return {head.name: head.role if head.weight == 1 else f"{head.role}:{head.weight:g}" for head in heads}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadChoice:
    """What a user says of one output, `NAME=ROLE[:WEIGHT]`.

    Attributes:
        name: The output or inner tensor.
        role: A name in `ROLE_KINDS`.
        weight: Factor of its damage.
    """

    name: str
    role: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> HeadChoice:
        """Read `NAME=ROLE[:WEIGHT]`; names may hold `=` and `:`.

        Raises:
            RecordError: It is of another form, or the role is unknown.

        Example:
            >>> HeadChoice.parse("boxes=values:0.5")
            HeadChoice(name='boxes', role='values', weight=0.5)
        """
        name, equals, rest = text.rpartition("=")
        role, colon, number = rest.partition(":")
        if not equals or not name:
            raise RecordError(f"output {text!r} is not of the form NAME=ROLE[:WEIGHT]")
        if role not in ROLE_KINDS:
            raise RecordError(f"output {name}: role {role!r} is none of {', '.join(ROLE_KINDS.names())}")
        try:
            weight = float(number) if colon else 1.0
        except ValueError as err:
            raise RecordError(f"output {name}: weight {number!r} is no number") from err
        Head(name=name, role=role, weight=weight)
        return cls(name=name, role=role, weight=weight)
