"""Parsers of verbs, looked up in that of the whole command line."""

from __future__ import annotations

import argparse
from collections.abc import Container


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Verb -> its parser."""
    return next(dict(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction))


def name_files(parser: argparse.ArgumentParser, names: Container[str], files: object) -> None:
    """Mark the arguments of these names as files, as shtab wants them marked."""
    for sub in parsers(parser).values():
        for action in sub._actions:
            if action.dest in names:
                action.complete = files  # type: ignore[attr-defined]
