"""Groups of flags that several verbs share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lampq.console import clashes, config, device_flags, site_flags
from lampq.core.allocating.scores import SCORES, score
from lampq.core.values.amounts import parse_bops, parse_size
from lampq.core.values.errors import LampqError
from lampq.core.values.fisher_kinds import KINDS, TRUE
from lampq.core.values.head import ROLE_KINDS
from lampq.core.values.measure_kinds import AUTO as BOTH
from lampq.core.values.measure_kinds import MEASURES
from lampq.core.values.measurement import CONTAINERS
from lampq.core.values.option import parse_activation_bits, parse_bits
from lampq.core.values.range_kinds import RANGES
from lampq.core.values.recipe import PUBLISHED, TYPE_SCALES
from lampq.core.values.rounding_kinds import MEASURED, NEAREST, ROUNDINGS
from lampq.core.values.score import AUTO
from lampq.core.values.shard import Shard
from lampq.core.values.weight_form import WEIGHT_FORMS
from lampq.verbs.formats import FORMATS

CALIBRATION_SAMPLES = 256
"""Samples that a profile takes unless told otherwise."""
BYTES = "--size is bytes of the model, such as 12MB; the size of images is --image-size {}"
"""What to say to a size of images."""
# The least of what the libraries take.
_SEEDS = 2**32


def common(sub: argparse.ArgumentParser) -> None:
    """What every verb takes."""
    sub.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    sub.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of every random choice (0)")
    sub.add_argument("--quiet", action="store_true", help="no tables and no progress on standard error")
    config.add_flag(sub)


def model(sub: argparse.ArgumentParser) -> None:
    """The model to read, and how."""
    sub.add_argument(
        "model",
        metavar="MODEL",
        help="x.onnx, x.tflite, x.pt2, a Hugging Face folder, file.py:factory, package.module:factory or timm:NAME",
    )
    checkpoint(sub)
    sub.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="PATTERN=KIND",
        help="call layers whose name matches the pattern this kind (repeatable)",
    )
    reading(sub)


def checkpoint(sub: argparse._ActionsContainer) -> None:
    """The weights of a model that is code."""
    sub.add_argument("--weights", metavar="FILE", help="checkpoint of a factory's model (.safetensors, .pth)")


def reading(sub: argparse.ArgumentParser) -> None:
    """What a model's outputs mean, and what becomes of weights that are quantized already."""
    sub.add_argument(
        "--output",
        dest="outputs",
        action="append",
        default=[],
        metavar="NAME=ROLE[:WEIGHT]",
        help=f"judge an output or inner tensor as {', '.join(ROLE_KINDS.loaded)}; see `lampq inspect` (repeatable)",
    )
    sub.add_argument(
        "--input-shape",
        dest="input_shapes",
        action="append",
        default=[],
        type=_shape,
        metavar="[NAME=]3x32x32",
        help="shape of a sample, where a PyTorch model has no data to tell it (repeatable, by name of the input)",
    )
    sub.add_argument(
        "--requantize",
        action="store_true",
        help="take weights that are quantized already as float ones, to be quantized anew",
    )
    device_flags.add_arguments(sub)


def data(
    sub: argparse.ArgumentParser,
    *,
    required: bool,
    refusable: bool = False,
    samples: int | None = CALIBRATION_SAMPLES,
) -> None:
    """Samples and their preprocessing.

    Args:
        sub: The verb's parser.
        required: Whether the verb needs them.
        refusable: Whether going without must be said, with --no-data.
        samples: How many to take unless told; None takes all.
    """
    group = sub.add_argument_group("data")
    choice = group.add_mutually_exclusive_group(required=True) if refusable else group
    choice.add_argument(
        "--data",
        required=required,
        metavar="DATA",
        help="folder of images (class sub-folders give labels), .npz with x (or an array per input) and optional y, "
        "texts (.txt, .jsonl, .csv), a table of images (.csv, .jsonl, .parquet), "
        "module:function, or synthetic: made from the model",
    )
    if refusable:
        choice.add_argument(
            "--no-data", action="store_true", help="statistics and errors of the weights only"
        )
    text = "all" if samples is None else str(samples)
    group.add_argument("--samples", type=count, default=samples, metavar="N", help=f"samples to use ({text})")
    group.add_argument(
        "--preset", metavar="NAME", help="preprocessing: imagenet, inception, cifar10, clip, none"
    )
    group.add_argument(
        "--image-size", metavar="HxW", type=_size, help="image size (default: the model's input)"
    )
    group.add_argument("--mean", metavar="R,G,B", type=_numbers, help="per-channel mean of pixels in [0, 1]")
    group.add_argument(
        "--std", metavar="R,G,B", type=_numbers, help="per-channel deviation of pixels in [0, 1]"
    )
    group.add_argument(
        "--input",
        dest="constants",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input that is the same for every sample: numbers like 480,640, or an .npy file (repeatable)",
    )


def no_size(sub: argparse.ArgumentParser) -> None:
    """`--size` is bytes, where there is a budget; here it says so."""
    sub.add_argument("--size", help=argparse.SUPPRESS)


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
        "--bits", type=_lampq(parse_bits), default="2-8", metavar="B", help="weight widths (2-8)"
    )
    group.add_argument(
        "--act-bits",
        type=_lampq(parse_activation_bits),
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
        type=int,
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
        type=int,
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
        type=_lampq(_mode),
        action="append",
        default=[],
        metavar="NAME",
        help="measure the tables of this score of an installed package too (repeatable)",
    )


def shard(sub: argparse.ArgumentParser) -> None:
    """A part of the data."""
    sub.add_argument(
        "--shard",
        type=_lampq(Shard.parse),
        metavar="I/N",
        help="measure every N-th sample from the I-th on; `lampq merge` puts the parts together",
    )


def to(sub: argparse.ArgumentParser) -> None:
    """Another format to write."""
    sub.add_argument(
        "--to",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"format to write: {', '.join(FORMATS)}, to which a PyTorch model is exported first",
    )


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
    group.add_argument("--size", dest="size_bytes", type=_bytes, metavar="12MB", help="bytes of the model")
    group.add_argument(
        "--max-kl", type=float, metavar="N", help="smallest plan predicted to lose at most N nats"
    )
    limits(group)


def limits(group: argparse._ArgumentGroup) -> None:
    """Limits beside bits and bytes."""
    group.add_argument(
        "--max-bops",
        type=_lampq(parse_bops),
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
        type=_lampq(parse_size),
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
        type=_lampq(_mode),
        default=AUTO,
        metavar="NAME",
        help=f"score: auto (the best measured), {', '.join(SCORES.loaded)}, or one of an installed package",
    )
    if solver:
        group.add_argument("--solver", default="auto", metavar="NAME", help="auto, exact, scipy or cbc")
        group.add_argument("--time-limit", type=float, metavar="S", help="seconds for the solver")
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
        ("--probes", int, "N", "layers of a type that fix its scale"),
        ("--beta", int, "BITS", "width of the probes"),
        ("--gamma", float, "G", "how much a bit shrinks damage"),
        ("--error-table", str, "NAME", "errors of other widths: measured, paper, mse, minmax(2.96)"),
        ("--max-swaps", int, "N", "swaps of the update, 0 for none"),
    )
    fields = {"--error-table": "table", "--max-swaps": "most_swaps"}
    for flag, kind, metavar, text in numbers:
        default = getattr(PUBLISHED, fields.get(flag, flag.lstrip("-")))
        group.add_argument(flag, type=kind, metavar=metavar, default=default, help=f"{text} ({default})")
    group.add_argument(
        "--weighted-errors", action="store_true", help="weigh the update's errors by the layers' sensitivity"
    )


def output(sub: argparse.ArgumentParser, what: str, written: clashes.Written = clashes.one_file) -> None:
    """The file to write, and what it stands for."""
    sub.set_defaults(written=written)
    sub.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=what)
    sub.add_argument("--force", action="store_true", help="overwrite an existing output")


def _bytes(text: str) -> int:
    if re.fullmatch(r"\d+x\d+", text.lower()):
        raise argparse.ArgumentTypeError(BYTES.format(text))
    return _lampq(parse_size)(text)


_Value = TypeVar("_Value")


def _lampq(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    def convert(text: str) -> _Value:
        try:
            return parse(text)
        except LampqError as err:
            raise argparse.ArgumentTypeError(str(err)) from err

    return convert


def _mode(text: str) -> str:
    """The name of a score. Packages are asked for those that are not lampq's own."""
    return text if text == AUTO else score(text).name


def count(text: str) -> int:
    """A number of samples."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} samples: use at least 1")
    return value


def processes(text: str) -> int:
    """A number of processes."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} processes: use at least 1")
    return value


def seed(text: str) -> int:
    """What random choices start from."""
    value = int(text)
    if not 0 <= value < _SEEDS:
        raise argparse.ArgumentTypeError(f"{text}: use a number from 0 to {_SEEDS - 1}")
    return value


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.lower().partition("x")
    try:
        size = int(height), int(width if cross else height)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write an image size like 224 or 224x224") from err
    return size


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sides = text.rpartition("=")
    try:
        shape = tuple(int(side) for side in sides.lower().split("x"))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write a shape like 3x32x32 or tokens=16") from err
    if min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: every side of a shape is at least 1")
    return name, shape


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers like 0.485,0.456,0.406") from err
