"""Parsers of verbs, looked up in that of the whole command line."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Container, Iterable


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Verb -> its parser."""
    return next(dict(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction))


def near(name: str, names: Iterable[str]) -> str:
    """Names that may have been meant, as the end of a message; dashes before them do not count.

    >>> near("pins", ["--avg-bits", "--pin"])
    '; did you mean --pin?'
    """
    bare = {known.lstrip("-"): known for known in names}
    close = difflib.get_close_matches(name.lstrip("-"), list(bare), n=3)
    return f"; did you mean {' or '.join(bare[match] for match in close)}?" if close else ""


def name_files(parser: argparse.ArgumentParser, names: Container[str], files: object) -> None:
    """Mark the arguments of these names as files, as shtab wants them marked."""
    for sub in parsers(parser).values():
        for action in sub._actions:
            if action.dest in names:
                action.complete = files  # type: ignore[attr-defined]
