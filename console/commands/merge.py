"""`lampq merge`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq.console import clashes, flags, given, render
from lampq.core.values.merge import merge
from lampq.core.values.profile import Profile
from lampq.verbs.inspect import inspect

EXAMPLE = "lampq merge part-1.json part-2.json -o profile.json"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument(
        "profiles",
        metavar="PROFILE",
        nargs="+",
        type=Path,
        help="profiles made by `lampq profile --shard i/n`, all of them",
    )
    flags.output(sub, "profile to write (JSON; its arrays go beside it as .npz)", clashes.profile_pair)


def run(args: Namespace) -> None:
    """Run the verb."""
    merge([Profile.read(path) for path in args.profiles]).write(args.out, force=args.force)
    given.finish(args, lambda: inspect(args.out).to_json(), lambda: render.listing(inspect(args.out)))
