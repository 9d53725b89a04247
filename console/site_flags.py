"""Flags of the sites whose activations are rounded."""

from __future__ import annotations

import argparse
from typing import Any

from lampq.core.values.rewrite_kinds import NONE, REWRITES
from lampq.core.values.site_kinds import INPUTS, SITES


def add(group: Any) -> None:
    """`--sites`, `--quantizers` and `--rewrites`."""
    group.add_argument(
        "--sites",
        choices=SITES,
        default=INPUTS,
        help="round layers' inputs, or all: factors of attention too, each site by the quantizer that loses least "
        "(PyTorch, ONNX)",
    )
    group.add_argument(
        "--quantizers",
        type=_names,
        metavar="TAG,...",
        help="quantizers that sites choose among, such as uniform,token,log2 (all, with --sites all)",
    )
    group.add_argument(
        "--rewrites",
        choices=REWRITES,
        default=NONE,
        help="rewrite normalizations that layers alone read, so that the model computes the same and its channels "
        "round alike: all in one way, or each as measures best (none)",
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("name at least one quantizer")
    return names


def low_rank(sub: argparse._ActionsContainer) -> None:
    """Factors beside the layers of a plan."""
    sub.add_argument(
        "--low-rank",
        action="append",
        default=[],
        metavar="PATTERN=RANK",
        help="put two thin factors of 8 bits beside layers, which give back what rounding takes (repeatable; ONNX)",
    )
