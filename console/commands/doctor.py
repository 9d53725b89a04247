"""`lampq doctor`."""

from __future__ import annotations

import json
import platform
from argparse import ArgumentParser, Namespace

from lampq.console import tables
from lampq.core.values.errors import LampqError
from lampq.verbs.doctor import BROKEN, doctor

EXAMPLE = "lampq doctor"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb: none of its own."""


def run(args: Namespace) -> None:
    """Run the verb.

    Raises:
        LampqError: Something is installed and does not work.
    """
    findings = doctor()
    if not args.quiet:
        rows = [(f.name, f.state, f.purpose, f.versions, f.remedy or "-") for f in findings]
        tables.table("parts", ("part", "state", "what for", "versions", "remedy"), rows)
        tables.facts("", {"python": platform.python_version(), "machine": platform.platform()})
    if args.json:
        print(json.dumps([finding.to_json() for finding in findings]))
    broken = [finding.name for finding in findings if finding.state == BROKEN]
    if broken:
        raise LampqError(f"installed and broken: {', '.join(broken)}; the table says why and what to run")
