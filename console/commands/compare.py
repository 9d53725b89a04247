"""`lampq compare`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from lampq.console import tables
from lampq.core.values.errors import PlanError
from lampq.core.values.messages import printable
from lampq.core.values.plan import Plan
from lampq.verbs.compare import compare

EXAMPLE = "lampq compare plan.json other.json"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument(
        "plans", metavar="PLAN", nargs="+", help="two plans or more, of one model in any formats"
    )
    sub.add_argument("--all", action="store_true", help="show layers of equal widths too")
    sub.add_argument("--check", action="store_true", help="leave with exit code 2 if any widths differ")
    sub.add_argument(
        "--by-name", action="store_true", help="match layers by name and size where weights differ"
    )


def run(args: Namespace) -> None:
    """Run the verb.

    Raises:
        PlanError: Widths differ and that was to be checked.
    """
    plans = [Plan.read(Path(path)) for path in args.plans]
    comparison = compare(plans, args.plans, by_name=args.by_name)
    shown = comparison.layers if args.all else comparison.different
    if not args.quiet:
        title = "layers" if args.all else f"layers that differ ({len(shown)} of {len(comparison.layers)})"
        tables.table(
            title, ("layer", "weights", *comparison.labels), [(x.name, x.size, *x.options) for x in shown]
        )
        tables.table(
            "totals",
            ("", *comparison.labels),
            [(name, *values) for name, values in comparison.totals.items()],
        )
    if args.json:
        print(json.dumps(comparison.to_json()))
    else:
        for layer in comparison.different:
            print(printable(layer.name), *(option or "float" for option in layer.options), sep="\t")
    if args.check and not comparison.same:
        raise PlanError(
            f"{len(comparison.different)} of {len(comparison.layers)} layers have different widths"
        )
