"""One file per verb: its name, its flags, and what it does with them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Protocol

from lampq.console.commands import (
    apply,
    compare,
    completion,
    convert,
    demo,
    doctor,
    eval,
    inspect,
    match,
    merge,
    plan,
    profile,
    quantize,
    report,
    sweep,
)


class Verb(Protocol):
    """A module of this package.

    Attributes:
        NAME: The word on the command line.
        SUMMARY: One line of help.
        EXAMPLE: A command that works.
    """

    NAME: str
    SUMMARY: str
    EXAMPLE: str

    def add_arguments(self, sub: ArgumentParser) -> None:
        """Declare the flags."""

    def run(self, args: Namespace) -> None:
        """Do the work; raises LampqError on bad input."""


VERBS: tuple[Verb, ...] = (
    profile,
    plan,
    apply,
    quantize,
    eval,
    sweep,
    inspect,
    report,
    match,
    merge,
    convert,
    compare,
    demo,
    doctor,
    completion,
)
