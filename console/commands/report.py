"""`lampq report`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq.console import flags, given, tables
from lampq.core.values.plan import Plan
from lampq.core.values.profile import Profile
from lampq.verbs.report import report

EXAMPLE = "lampq report plan.json --profile profile.json -o report.html"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument("plan", metavar="PLAN", type=Path, help="plan made by `lampq plan` or `lampq quantize`")
    sub.add_argument(
        "--profile",
        type=Path,
        metavar="PROFILE",
        help="profile of the same model: adds every other budget and the interactions between layers",
    )
    flags.output(sub, "page to write (HTML)")


def run(args: Namespace) -> None:
    """Run the verb."""
    plan = Plan.read(args.plan)
    profile = Profile.read(args.profile) if args.profile else None
    names = {"plan_file": str(args.plan), "profile_file": str(args.profile or "profile.json")}
    report(plan, args.out, profile=profile, seed=args.seed, force=args.force, **names)
    summary = {"bytes": args.out.stat().st_size, "layers": len(plan.layers), "profile": profile is not None}
    given.finish(args, lambda: {"out": str(args.out), **summary}, lambda: tables.facts("report", summary))
