"""`lampq match`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from lampq.console import given, tables
from lampq.core.values.errors import PlanError
from lampq.core.values.messages import printable
from lampq.verbs.match import match
from lampq.verbs.sources import Source, read_source

EXAMPLE = (
    "lampq match plan.json vit.tflite\n\n"
    "exit status: 0 when every layer of either side has a match, 2 otherwise (and on bad input).\n"
    "Standard output: a line per match (LEFT, RIGHT, HOW, tab-separated), or with --json an object\n"
    'whose "complete" tells whether anything is left over; it is printed in both cases.'
)


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument("left", metavar="A", help="a model of any format, a profile or a plan")
    sub.add_argument("right", metavar="B", help="another")
    sub.add_argument("--weights-a", metavar="FILE", help="checkpoint, where A is a factory")
    sub.add_argument("--weights-b", metavar="FILE", help="checkpoint, where B is a factory")
    sub.add_argument(
        "--by-name", action="store_true", help="match layers by name and size where weights differ"
    )


def run(args: Namespace) -> None:
    """Run the verb.

    Raises:
        PlanError: Something is left over.
    """
    correspondence = match(
        _read(args.left, args.weights_a), _read(args.right, args.weights_b), by_name=args.by_name
    )
    if not args.quiet:
        tables.table("matches", (args.left, args.right, "how", "distance"), correspondence.rows())
    if args.json:
        print(json.dumps(correspondence.to_json()))
    else:
        for left, right, how, _ in correspondence.rows():
            print(printable(left), printable(right), how, sep="\t")
    if not correspondence.complete:
        raise PlanError(f"{correspondence.remainder} (first {args.left}, second {args.right})")


def _read(path: str, weights: str | None) -> Source:
    return read_source(path, **given.weights_of(path, weights))
