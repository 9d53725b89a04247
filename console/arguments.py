"""The command line's words."""

from __future__ import annotations

import argparse
from pathlib import Path

from lampq.core.budget import parse_size
from lampq.core.errors import LampqError
from lampq.core.option import parse_bits
from lampq.core.scores import MODES, SUPERPOSITION

_DESCRIPTION = "Decide how many bits each layer of a neural network gets, and write the model that way."


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as written and lines up options on terminals of any width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.verb` names the command."""
    parser = argparse.ArgumentParser(
        prog="lampq",
        description=_DESCRIPTION,
        formatter_class=_Help,
        epilog="example:\n  lampq quantize vit.onnx --data images/ --avg-bits 4 -o vit-4bit.onnx\n\n"
        "`lampq VERB --help` explains each verb with an example.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")

    def verb(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name, help=summary, description=summary, formatter_class=_Help, epilog=f"example:\n  {example}"
        )
        sub.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
        sub.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random choice (0)")
        sub.add_argument("--quiet", action="store_true", help="no tables and no progress on standard error")
        return sub

    sub = verb(
        "profile",
        "measure a model: statistics, quantization errors, damage of every layer at every width",
        "lampq profile vit.onnx --data calib/ -o profile.json",
    )
    _model(sub)
    _data(sub, required=False)
    _measure(sub)
    _output(sub, "profile to write (JSON; its arrays go beside it as .npz)")

    sub = verb(
        "plan",
        "choose the width of every layer from a profile",
        "lampq plan profile.json --avg-bits 3.5 --pin 'head=8' -o plan.json",
    )
    sub.add_argument("profile", metavar="PROFILE", type=Path, help="profile made by `lampq profile`")
    _budget(sub, "--size")
    _search(sub)
    _output(sub, "plan to write (JSON)")

    sub = verb(
        "apply",
        "write the quantized model in the model's own format",
        "lampq apply vit.onnx plan.json -o vit-q.onnx",
    )
    _model(sub)
    sub.add_argument("plan", metavar="PLAN", type=Path, help="plan made by `lampq plan`")
    sub.add_argument(
        "--partial", action="store_true", help="apply even if some layers of either side find no match"
    )
    _output(sub, "quantized model to write")

    sub = verb(
        "quantize",
        "profile, plan and apply in one, checked on the calibration data",
        "lampq quantize vit.onnx --data calib/ --avg-bits 3 -o vit-3bit.onnx",
    )
    _model(sub)
    _data(sub, required=True, size_flag="--image-size")
    _measure(sub)
    _budget(sub, "--size")
    _search(sub)
    sub.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="rounds of measuring around the plan (2)"
    )
    sub.add_argument("--plan-out", type=Path, metavar="FILE", help="write the plan too")
    _output(sub, "quantized model to write")

    sub = verb(
        "eval",
        "top-1, KL to a reference, bytes, milliseconds per sample",
        "lampq eval vit-q.onnx --data val/ --reference vit.onnx --json",
    )
    _model(sub)
    _data(sub, required=True, samples=None)
    sub.add_argument("--reference", metavar="MODEL", help="float model to compare with")
    sub.add_argument("--batch", type=int, default=64, metavar="N", help="samples per run (64)")

    sub = verb(
        "sweep", "every budget from one profile", "lampq sweep profile.json -o pareto.csv --plot pareto.png"
    )
    sub.add_argument("profile", metavar="PROFILE", type=Path, help="profile made by `lampq profile`")
    _search(sub, solver=False)
    sub.add_argument("--plot", type=Path, metavar="PNG", help="draw the curve too (needs the plot extra)")
    _output(sub, "table to write (CSV)")

    sub = verb("inspect", "what is in a model, profile or plan, as a table", "lampq inspect plan.json")
    sub.add_argument("file", metavar="FILE", help="a model, profile.json or plan.json")

    sub = verb(
        "demo",
        "the whole job on a bundled trained model and bundled real images, offline, in seconds",
        "lampq demo -o demo/",
    )
    sub.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="keep the files made on the way")
    sub.add_argument("--force", action="store_true", help="overwrite files in that folder")
    return parser


def _model(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "model",
        metavar="MODEL",
        help="x.onnx, x.tflite, x.pt2, a Hugging Face folder, file.py:factory, package.module:factory or timm:NAME",
    )
    sub.add_argument("--weights", metavar="FILE", help="checkpoint of a factory's model (.safetensors, .pth)")
    sub.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="PATTERN=KIND",
        help="call layers whose name matches the pattern this kind (repeatable)",
    )


def _data(
    sub: argparse.ArgumentParser, *, required: bool, size_flag: str = "--size", samples: int | None = 256
) -> None:
    group = sub.add_argument_group("data")
    choice = group.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        "--data",
        metavar="DATA",
        help="folder of images (class sub-folders give labels), .npz with x and optional y, or module:function",
    )
    if not required:
        choice.add_argument(
            "--no-data", action="store_true", help="statistics and errors of the weights only"
        )
    text = "all" if samples is None else str(samples)
    group.add_argument(
        "--samples", type=_count, default=samples, metavar="N", help=f"samples to use ({text})"
    )
    group.add_argument(
        "--preset", metavar="NAME", help="preprocessing: imagenet, inception, cifar10, clip, none"
    )
    group.add_argument(
        size_flag,
        dest="image_size",
        metavar="HxW",
        type=_size,
        help="image size (default: the model's input)",
    )
    group.add_argument("--mean", metavar="R,G,B", type=_numbers, help="per-channel mean of pixels in [0, 1]")
    group.add_argument(
        "--std", metavar="R,G,B", type=_numbers, help="per-channel deviation of pixels in [0, 1]"
    )


def _measure(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("measurement")
    group.add_argument(
        "--bits", type=_lampq(parse_bits), default="2-8", metavar="B", help="weight widths (2-8)"
    )
    group.add_argument(
        "--act-bits", type=int, choices=[8], metavar="8", help="quantize layer inputs too, static, to 8 bits"
    )
    group.add_argument(
        "--container",
        choices=["bitplane", "int8"],
        default="bitplane",
        help="exactly b bits, or one byte a weight",
    )
    group.add_argument(
        "--fisher-draws",
        type=int,
        default=2,
        metavar="N",
        help="random draws of the Fisher trace, 0 to skip it (2)",
    )


def _budget(sub: argparse.ArgumentParser, size_flag: str) -> None:
    group = sub.add_argument_group("budget (at least one)")
    group.add_argument("--avg-bits", dest="average_bits", metavar="B", help="bits per weight on average")
    group.add_argument(
        size_flag, dest="size_bytes", type=_lampq(parse_size), metavar="12MB", help="bytes of the model"
    )
    group.add_argument(
        "--max-kl", type=float, metavar="N", help="smallest plan predicted to lose at most N nats"
    )


def _search(sub: argparse.ArgumentParser, *, solver: bool = True) -> None:
    group = sub.add_argument_group("search")
    group.add_argument(
        "--mode",
        choices=["auto", SUPERPOSITION, *MODES],
        default="auto",
        help="score (auto: the best measured)",
    )
    if solver:
        group.add_argument("--solver", default="auto", metavar="NAME", help="auto, exact, scipy or cbc")
        group.add_argument("--time-limit", type=float, metavar="S", help="seconds for the solver")
    group.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="PATTERN=BITS",
        help="fix a kind's or layer's width (repeatable)",
    )
    group.add_argument(
        "--tie",
        action="append",
        default=[],
        metavar="PATTERN",
        help="layers that take one width (repeatable)",
    )


def _output(sub: argparse.ArgumentParser, what: str) -> None:
    sub.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=what)
    sub.add_argument("--force", action="store_true", help="overwrite an existing output")


def _lampq(parse):
    def convert(text: str):
        try:
            return parse(text)
        except LampqError as err:
            raise argparse.ArgumentTypeError(str(err)) from err

    return convert


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} samples: use at least 1")
    return value


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.lower().partition("x")
    try:
        size = int(height), int(width if cross else height)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write an image size like 224 or 224x224") from err
    return size


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers like 0.485,0.456,0.406") from err
