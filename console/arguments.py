"""The command line's words: one parser per verb, each described in its own file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Container, Sequence
from typing import Any, NoReturn

from lampq.console import config
from lampq.console.commands import SUMMARIES, load
from lampq.console.help import Help
from lampq.console.parsers import near, parsers

_DESCRIPTION = "Decide how many bits each layer of a neural network gets, and write the model that way."
_EPILOG = """example:
  lampq quantize vit.onnx --data images/ --avg-bits 4 -o vit-4bit.onnx

`lampq VERB --help` explains each verb with an example; `lampq demo` shows all of it."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where all that is right can be read."""

    def error(self, message: str) -> NoReturn:
        see = " See" if message.endswith("?") else "; see"
        self.exit(2, f"{self.prog}: error: {message}{see} `{self.prog} --help`\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in SUMMARIES:
            raise argparse.ArgumentError(None, f"no verb is called {value!r}{near(value, SUMMARIES)}")
        super()._check_value(action, value)


def build_parser(verbs: Container[str] = SUMMARIES) -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.run` is the function of the verb that was named.

    Args:
        verbs: Those whose flags are declared; of others there is the line of help, and nothing is loaded.
    """
    parser = _Parser(prog="lampq", description=_DESCRIPTION, formatter_class=Help, epilog=_EPILOG)
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    group = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, summary in SUMMARIES.items():
        sub = group.add_parser(name, help=summary, description=summary, formatter_class=Help)
        if name in verbs:
            _declare(sub, name)
    return parser


def _declare(sub: argparse.ArgumentParser, name: str) -> None:
    """The flags that all verbs have, and those of one."""
    # Not above: the help of all verbs needs nothing of what flags are checked against.
    from lampq.console import flags

    verb = load(name)
    sub.epilog = f"example:\n  {verb.EXAMPLE}"
    flags.common(sub)
    verb.add_arguments(sub)
    sub.set_defaults(run=verb.run)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with the flags of its file put in.

    Raises:
        RecordError: The file cannot be read, or names an unknown flag.
    """
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser(words)
    verbs = parsers(parser)
    args, rest = parser.parse_known_args(config.expanded(words, verbs))
    if rest:
        _refuse(verbs.get(args.verb, parser), rest)
    return args


def _refuse(parser: argparse.ArgumentParser, words: Sequence[str]) -> NoReturn:
    """Say which words of a command line are none."""
    flag = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
    if flag is None:
        parser.error(f"these words are too many: {' '.join(words)}")
    parser.error(f"no flag is called {flag}{near(flag, parser._option_string_actions)}")
