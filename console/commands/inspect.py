"""`lampq inspect`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from lampq.console import render
from lampq.verbs.inspect import inspect

NAME = "inspect"
SUMMARY = "what is in a model, profile or plan, as a table"
EXAMPLE = "lampq inspect plan.json"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    sub.add_argument("file", metavar="FILE", help="a model, profile.json or plan.json")


def run(args: Namespace) -> None:
    """Run the verb."""
    found = inspect(args.file)
    if args.json:
        print(json.dumps(found.to_json()))
    else:
        render.listing(found)
