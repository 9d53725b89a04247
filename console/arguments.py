"""The command line's words: one parser per verb, each described in its own file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from lampq.console import config, flags
from lampq.console.commands import VERBS
from lampq.console.parsers import parsers

_DESCRIPTION = "Decide how many bits each layer of a neural network gets, and write the model that way."


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as written and lines up options on terminals of any width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where all that is right can be read."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see `{self.prog} --help`\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.run` is the function of the verb that was named."""
    parser = _Parser(
        prog="lampq",
        description=_DESCRIPTION,
        formatter_class=_Help,
        epilog="example:\n  lampq quantize vit.onnx --data images/ --avg-bits 4 -o vit-4bit.onnx\n\n"
        "`lampq VERB --help` explains each verb with an example.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for verb in VERBS:
        sub = verbs.add_parser(
            verb.NAME,
            help=verb.SUMMARY,
            description=verb.SUMMARY,
            formatter_class=_Help,
            epilog=f"example:\n  {verb.EXAMPLE}",
        )
        sub.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
        sub.add_argument(
            "--seed", type=flags.seed, default=0, metavar="N", help="seed of every random choice (0)"
        )
        sub.add_argument("--quiet", action="store_true", help="no tables and no progress on standard error")
        config.add_flag(sub)
        verb.add_arguments(sub)
        sub.set_defaults(run=verb.run, parser=parser)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with the flags of its file put in.

    Raises:
        RecordError: The file cannot be read, or names an unknown flag.
    """
    return parser.parse_args(config.expanded(sys.argv[1:] if argv is None else argv, parsers(parser)))
