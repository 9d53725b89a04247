"""Flags of what a profile measures, and of which layers."""

from __future__ import annotations

import argparse

from lampq.console import flag_types, site_flags
from lampq.core.values.fisher_kinds import KINDS, TRUE
from lampq.core.values.measure_kinds import AUTO as BOTH
from lampq.core.values.measure_kinds import MEASURES
from lampq.core.values.measurement import CONTAINERS
from lampq.core.values.option import parse_activation_bits, parse_bits, parse_ranks
from lampq.core.values.range_kinds import RANGES
from lampq.core.values.rounding_kinds import MEASURED, NEAREST, ROUNDINGS
from lampq.core.values.shard import Shard
from lampq.core.values.weight_form import WEIGHT_FORMS


def selection(sub: argparse.ArgumentParser) -> None:
    """Layers that are not quantized at all."""
    group = sub.add_argument_group("layers")
    for flag, text in (
        ("--keep", "leave these layers float: names with * and {a,b}, or a kind (repeatable)"),
        ("--only", "quantize these layers alone, and leave all others float (repeatable)"),
    ):
        group.add_argument(flag, action="append", default=[], metavar="PATTERN", help=text)


def measure(
    sub: argparse.ArgumentParser, *, rounding: str = NEAREST, roundings: tuple[str, ...] = MEASURED
) -> None:
    """What a profile measures."""
    group = sub.add_argument_group("measurement")
    group.add_argument(
        "--bits", type=flag_types.parsed(parse_bits), default="2-8", metavar="B", help="weight widths (2-8)"
    )
    group.add_argument(
        "--ranks",
        type=flag_types.parsed(parse_ranks),
        default="0",
        metavar="R",
        help="try two thin factors of these ranks beside every width too, which give back what rounding takes, such as "
        "0,1,2,4 (0: none; ONNX, with --rounding inputs or corrected)",
    )
    group.add_argument(
        "--act-bits",
        type=flag_types.parsed(parse_activation_bits),
        metavar="B",
        help="quantize layer inputs too: 8 (ONNX: or 16), or with PyTorch and ONNX models any widths like 4,8 or 2-8, "
        "measured in pairs",
    )
    group.add_argument(
        "--act-range",
        choices=RANGES,
        help="range of an input: of the calibration data, or of each token (mse; minmax alone for TFLite, and for ONNX "
        "with inputs of 8 or of 16 bits)",
    )
    site_flags.add(group)
    group.add_argument(
        "--container",
        choices=CONTAINERS,
        default=CONTAINERS[0],
        help="exactly b bits, or one byte a weight",
    )
    group.add_argument(
        "--block",
        type=flag_types.whole,
        metavar="N",
        help="one scale per N weights of a row, such as 32, 64 or 128 (default: per output channel)",
    )
    group.add_argument(
        "--measure",
        choices=MEASURES,
        default=BOTH,
        help="what widths do to the outputs: from a few backward passes (gradients), or by quantizing one layer at a "
        "time (differences) (auto: gradients where the model has them and a few differences agree)",
    )
    group.add_argument(
        "--fisher",
        choices=KINDS,
        default=TRUE,
        help="labels of the Fisher traces: the model's own (true), those of the data (empirical), or forward "
        "passes instead of gradients (true; forward where a model has no gradients)",
    )
    rounded(group, roundings, rounding)
    group.add_argument(
        "--fisher-draws",
        type=flag_types.whole,
        default=2,
        metavar="N",
        help="random draws of the Fisher trace, 0 to skip it (2)",
    )


def rounded(
    sub: argparse._ActionsContainer, choices: tuple[str, ...], default: str | None, usual: str = ""
) -> None:
    """How weights become codes.

    Args:
        sub: Where the flag goes.
        choices: What it takes.
        default: What is done unless told; None leaves it open, and `usual` says what becomes of it.
        usual: The default in words.
    """
    sub.add_argument(
        "--rounding",
        choices=_Roundings(choices),
        default=default,
        help="how codes are chosen: for the least error of the layers' outputs on the data (inputs), also making up "
        "for the layers before where that measures better (corrected, of quantize and apply), or the nearest "
        f"(nearest); or the form of weights of an installed package (default: {usual or default})",
    )


class _Roundings(tuple[str, ...]):
    """Roundings to choose among, and the forms of weights of packages, which are not asked before one is named."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (name not in ROUNDINGS and name in WEIGHT_FORMS)


def scores(sub: argparse.ArgumentParser) -> None:
    """Tables beside lampq's own."""
    sub.add_argument(
        "--score",
        dest="scores",
        type=flag_types.parsed(flag_types.mode),
        action="append",
        default=[],
        metavar="NAME",
        help="measure the tables of this score of an installed package too (repeatable)",
    )


def shard(sub: argparse.ArgumentParser) -> None:
    """A part of the data."""
    sub.add_argument(
        "--shard",
        type=flag_types.parsed(Shard.parse),
        metavar="I/N",
        help="measure every N-th sample from the I-th on; `lampq merge` puts the parts together",
    )
