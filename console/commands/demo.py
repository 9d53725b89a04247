"""`lampq demo`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq.console import render
from lampq.console.progress import progress_bar
from lampq.verbs.demo import demo, demo_outputs

EXAMPLE = "lampq demo -o demo/"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument(
        "-o", "--out", type=Path, metavar="FOLDER", help="folder to write: keeps the files made on the way"
    )
    sub.add_argument("--force", action="store_true", help="overwrite an existing output")
    sub.set_defaults(written=demo_outputs)


def run(args: Namespace) -> None:
    """Run the verb."""
    with progress_bar(enabled=not args.quiet) as progress:
        rows = demo(args.out, force=args.force, progress=progress)
    if not args.quiet:
        render.demo(rows)
    if args.json:
        print(json.dumps([row.to_json() for row in rows]))
    elif args.out:
        print(args.out)
