"""`lampq completion`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from lampq.console import clashes
from lampq.console.parsers import name_files
from lampq.core.values.errors import MissingExtraError

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
    # Here, because it is what loads this file.
    from lampq.console.arguments import build_parser

    parser = build_parser()
    name_files(parser, {**clashes.READS, **clashes.WRITES}, shtab.FILE)
    print(shtab.complete(parser, args.shell))
