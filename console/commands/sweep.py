"""`lampq sweep`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq.console import flags, given, plan_flags, tables
from lampq.core.planning.tradeoff import AXES
from lampq.core.values.profile import Profile
from lampq.verbs.sweep import sweep, write_csv, write_plot

EXAMPLE = "lampq sweep profile.json -o pareto.csv --plot pareto.png"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument("profile", metavar="PROFILE", type=Path, help="profile made by `lampq profile`")
    plan_flags.search(sub, solver=False)
    plan_flags.limits(sub.add_argument_group("limits that every plan keeps"))
    sub.add_argument("--against", choices=AXES, help="what is swept (bits, or bops where input widths vary)")
    sub.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw a picture too: the curve (needs the plot extra)"
    )
    flags.output(sub, "table to write (CSV)")


def run(args: Namespace) -> None:
    """Run the verb."""
    request = given.limited(args)
    profile = Profile.read(args.profile)
    points = sweep(profile, request, against=args.against)
    if args.plot:
        write_plot(points, args.plot, force=args.force)
    write_csv(profile, points, args.out, force=args.force)
    knee = next((point for point in points if point.knee), points[0])
    summary = {
        "points": len(points),
        "knee_average_bits": knee.average_bits,
        "knee_size_bytes": knee.size_bytes,
        "knee_predicted_kl": knee.predicted_kl,
    }
    given.finish(
        args, lambda: {"out": str(args.out), **summary}, lambda: tables.facts("every budget", summary)
    )
