"""`lampq completion`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from lampq.console.parsers import name_files
from lampq.core.values.errors import MissingExtraError

NAME = "completion"
SUMMARY = "a script that completes verbs, flags and files in your shell"
EXAMPLE = 'eval "$(lampq completion bash)"   (in ~/.bashrc)'


def add_arguments(sub: ArgumentParser) -> None:
    """The shell."""
    sub.add_argument("shell", choices=("bash", "zsh"), help="the shell to write the script for")


def run(args: Namespace) -> None:
    """Run the verb.

    Raises:
        MissingExtraError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as err:
        raise MissingExtraError("shtab", "complete", err) from err
    name_files(args.parser, shtab.FILE)
    print(shtab.complete(args.parser, args.shell))
