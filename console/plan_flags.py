"""Flags of what a plan may cost, and of how it is looked for."""

from __future__ import annotations

import argparse

from lampq.console import flag_types
from lampq.core.allocating.scores import SCORES
from lampq.core.values.amounts import parse_bops, parse_size
from lampq.core.values.recipe import PUBLISHED, TYPE_SCALES
from lampq.core.values.score import AUTO


def budget(sub: argparse.ArgumentParser) -> None:
    """Limits of a plan."""
    group = sub.add_argument_group("budget (at least one; all that are given hold together)")
    group.add_argument("--avg-bits", dest="average_bits", metavar="B", help="bits per weight on average")
    group.add_argument(
        "--avg-act-bits",
        dest="average_input_bits",
        metavar="B",
        help="bits per input value on average, all values that layers read of a sample",
    )
    group.add_argument(
        "--size", dest="size_bytes", type=flag_types.size_bytes, metavar="12MB", help="bytes of the model"
    )
    group.add_argument(
        "--max-kl", type=flag_types.number, metavar="N", help="smallest plan predicted to lose at most N nats"
    )
    limits(group)


def limits(group: argparse._ArgumentGroup) -> None:
    """Limits beside bits and bytes."""
    group.add_argument(
        "--max-bops",
        type=flag_types.parsed(parse_bops),
        metavar="12G",
        help="bit operations per sample: multiply-accumulates x weight bits x input bits (32 for float inputs)",
    )
    for name, example in (("latency", "5ms"), ("energy", "3mJ")):
        group.add_argument(
            f"--{name}",
            metavar="CSV",
            help=f"table of {name} by layer, kind or shape and weight_bits; docs/budgets.md says how it looks",
        )
        group.add_argument(
            f"--max-{name}",
            metavar=example,
            help=f"the most the {name} of all layers may sum to (default: the table's line '# limit: {example}')",
        )
    group.add_argument(
        "--max-activation",
        dest="max_activation_bytes",
        type=flag_types.parsed(parse_size),
        metavar="256kB",
        help="bytes of the largest quantized layer input of one sample",
    )
    group.add_argument(
        "--at-most",
        action="append",
        default=[],
        metavar="N@BITS",
        help="at most N layers at this width: 4@8, or 4@6+ (6 bits or more), 4@3- (3 bits or less) (repeatable)",
    )
    group.add_argument(
        "--min",
        dest="floors",
        action="append",
        default=[],
        metavar="PATTERN=BITS",
        help="least width of a kind or layer, such as qkv=4 (repeatable)",
    )
    group.add_argument(
        "--max",
        dest="ceilings",
        action="append",
        default=[],
        metavar="PATTERN=BITS",
        help="largest width of a kind or layer, such as fc1=6 (repeatable)",
    )


def search(sub: argparse.ArgumentParser, *, solver: bool = True) -> None:
    """How a plan is looked for."""
    group = sub.add_argument_group("search")
    group.add_argument(
        "--mode",
        type=flag_types.parsed(flag_types.mode),
        default=AUTO,
        metavar="NAME",
        help=f"score: auto (the best measured), {', '.join(SCORES.loaded)}, or one of an installed package",
    )
    if solver:
        group.add_argument("--solver", default="auto", metavar="NAME", help="auto, exact, scipy or cbc")
        group.add_argument("--time-limit", type=flag_types.number, metavar="S", help="seconds for the solver")
    rules(group)


def rules(sub: argparse._ActionsContainer) -> None:
    """Widths that are fixed, or the same."""
    sub.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="PATTERN=BITS",
        help="fix a kind's or layer's width: head=8, head=w8a8 (repeatable)",
    )
    sub.add_argument(
        "--tie",
        action="append",
        default=[],
        metavar="PATTERN",
        help="layers that take one width (repeatable)",
    )


def recipe(sub: argparse.ArgumentParser) -> None:
    """The choices of mode lampq."""
    group = sub.add_argument_group("mode lampq (defaults in brackets)")
    group.add_argument(
        "--type-scale",
        choices=TYPE_SCALES,
        default=PUBLISHED.type_scale,
        help=f"damage of a type's probes: KL, or the share of changed predictions ({PUBLISHED.type_scale})",
    )
    numbers = (
        ("--probes", flag_types.whole, "N", "layers of a type that fix its scale"),
        ("--beta", flag_types.whole, "BITS", "width of the probes"),
        ("--gamma", flag_types.number, "G", "how much a bit shrinks damage"),
        ("--error-table", str, "NAME", "errors of other widths: measured, paper, mse, minmax(2.96)"),
        ("--max-swaps", flag_types.whole, "N", "swaps of the update, 0 for none"),
    )
    fields = {"--error-table": "table", "--max-swaps": "most_swaps"}
    for flag, kind, metavar, text in numbers:
        default = getattr(PUBLISHED, fields.get(flag, flag.lstrip("-")))
        group.add_argument(flag, type=kind, metavar=metavar, default=default, help=f"{text} ({default})")
    group.add_argument(
        "--weighted-errors", action="store_true", help="weigh the update's errors by the layers' sensitivity"
    )
