"""`lampq inspect`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq.console import flags, given, render
from lampq.core.values.errors import PlanError
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.verbs.inspect import inspect
from lampq.verbs.why import why

EXAMPLE = "lampq inspect plan.json --why --profile profile.json"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument("file", metavar="FILE", help="a model, profile.json or plan.json")
    flags.checkpoint(sub)
    flags.reading(sub)
    sub.add_argument(
        "--why",
        action="store_true",
        help="of a plan: what one width more or less would cost and save in each layer, and whether it fits",
    )
    sub.add_argument(
        "--profile", type=Path, metavar="PROFILE", help="profile of the same model: figures for --why"
    )


def run(args: Namespace) -> None:
    """Run the verb."""
    if args.profile is not None and not args.why:
        raise PlanError("--profile goes with --why")
    if args.why:
        profile = None if args.profile is None else Profile.read(args.profile)
        table = why(Plan.read(Path(args.file)), profile)
    else:
        table = inspect(args.file, given.outputs(args), **given.read_options(args, args.file))
    if args.json:
        print(json.dumps(table.to_json()))
    else:
        render.listing(table)
