"""Groups of flags that several verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path

from lampq.console import clashes, config, device_flags, flag_types
from lampq.core.values.head import ROLE_KINDS
from lampq.verbs.formats import FORMATS

CALIBRATION_SAMPLES = 256
"""Samples that a profile takes unless told otherwise."""


def common(sub: argparse.ArgumentParser) -> None:
    """What every verb takes."""
    sub.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    sub.add_argument(
        "--seed", type=flag_types.seed, default=0, metavar="N", help="seed of every random choice (0)"
    )
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
        type=flag_types.shape,
        metavar="[NAME=]3x32x32",
        help="shape of a sample, where a PyTorch model has no data to tell it, or for --data synthetic where an input "
        "takes any length (repeatable, by name of the input)",
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
    group.add_argument(
        "--samples", type=flag_types.count, default=samples, metavar="N", help=f"samples to use ({text})"
    )
    group.add_argument(
        "--preset", metavar="NAME", help="preprocessing: imagenet, inception, cifar10, clip, none"
    )
    group.add_argument(
        "--image-size",
        metavar="HxW",
        type=flag_types.image_size,
        help="image size (default: the model's input)",
    )
    group.add_argument(
        "--mean", metavar="R,G,B", type=flag_types.numbers, help="per-channel mean of pixels in [0, 1]"
    )
    group.add_argument(
        "--std", metavar="R,G,B", type=flag_types.numbers, help="per-channel deviation of pixels in [0, 1]"
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


def to(sub: argparse.ArgumentParser) -> None:
    """Another format to write."""
    sub.add_argument(
        "--to",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"format to write: {', '.join(FORMATS)}, to which a PyTorch model is exported first",
    )


def output(sub: argparse.ArgumentParser, what: str, written: clashes.Written = clashes.one_file) -> None:
    """The file to write, and what it stands for."""
    sub.set_defaults(written=written)
    sub.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=what)
    sub.add_argument("--force", action="store_true", help="overwrite an existing output")
