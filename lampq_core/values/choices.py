"""Fields of records given by name, where the name may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lampq.core.values.errors import RecordError
from lampq.core.values.messages import printable


def refuse_unknown(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Stop at a name that is none of the known ones.

    Args:
        names: What was given.
        known: What there is.
        what: Of what, for the message.

    Raises:
        RecordError: One is unknown; lists those that are known.

    >>> refuse_unknown(["pin"], ["mode", "pins"], "a plan")
    Traceback (most recent call last):
        ...
    lampq.core.values.errors.RecordError: 'pin' is no choice of a plan; there are mode, pins
    """
    choices = sorted(set(known))
    for name in names:
        if name not in choices:
            raise RecordError(f"'{printable(name)}' is no choice of {what}; there are {', '.join(choices)}")


def named(choices: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The choices of these names."""
    known = frozenset(names)
    return {name: choice for name, choice in choices.items() if name in known}
