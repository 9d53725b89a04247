"""Parsers of verbs, looked up in that of the whole command line."""

from __future__ import annotations

import argparse

from lampq.console import clashes


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Verb -> its parser."""
    return next(dict(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction))


def name_files(parser: argparse.ArgumentParser, files: object) -> None:
    """Mark the arguments that name files, as shtab wants them marked."""
    for sub in parsers(parser).values():
        for action in sub._actions:
            if action.dest in clashes.READS or action.dest in clashes.WRITES:
                action.complete = files  # type: ignore[attr-defined]
