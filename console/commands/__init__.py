"""One file per verb, loaded when its name stands on the command line: its flags, and what it does with them."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Protocol, cast


class Verb(Protocol):
    """A module of this package.

    Attributes:
        EXAMPLE: A command that works.
    """

    EXAMPLE: str

    def add_arguments(self, sub: ArgumentParser) -> None:
        """Declare the flags."""

    def run(self, args: Namespace) -> None:
        """Do the work; raises LampqError on bad input."""


GROUPS: Mapping[str, Mapping[str, str]] = {
    "in one step": {
        "quantize": "profile, plan and apply in one, checked on the data",
        "eval": "accuracy, damage to the float model, bytes, time per sample",
        "demo": "the whole job on a bundled trained model and images, offline",
    },
    "step by step": {
        "profile": "measure what every width does to every layer of a model",
        "plan": "choose the width of every layer from a profile",
        "apply": "write the quantized model in the model's own format",
        "sweep": "every budget from one profile",
        "merge": "put profiles of parts of the data together",
    },
    "to look at": {
        "inspect": "what is in a model, profile or plan, as a table",
        "report": "a plan as a web page to explore, complete in one file",
        "compare": "plans side by side: where widths differ, what they come to",
        "match": "layers of two models, profiles or plans with the same weights",
    },
    "with other tools": {
        "convert": "a plan for another tool, or the plan of another tool's file",
        "doctor": "what is installed, what works, and what to install for what",
        "completion": "a script that completes verbs, flags and files in your shell",
    },
}
"""What one wants -> verb -> its line of help. Here, so that the help of all verbs loads none of them."""

SUMMARIES: Mapping[str, str] = {verb: text for verbs in GROUPS.values() for verb, text in verbs.items()}
"""Verb -> its line of help."""


def load(verb: str) -> Verb:
    """The module of a verb."""
    return cast(Verb, importlib.import_module(f"{__name__}.{verb}"))
