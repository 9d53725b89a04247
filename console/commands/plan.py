"""`lampq plan`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq.console import flags, given, plan_flags, render
from lampq.core.values.profile import Profile
from lampq.verbs.plan import plan

EXAMPLE = "lampq plan profile.json --avg-bits 3.5 --pin 'head=8' -o plan.json"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument("profile", metavar="PROFILE", type=Path, help="profile made by `lampq profile`")
    plan_flags.budget(sub)
    plan_flags.search(sub)
    plan_flags.recipe(sub)
    flags.output(sub, "plan to write (JSON)")


def run(args: Namespace) -> None:
    """Run the verb."""
    request = given.request(args)
    result = plan(Profile.read(args.profile), request)
    result.write(args.out, force=args.force)
    given.finish(args, result.to_json, lambda: render.plan(result))
