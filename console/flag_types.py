"""What flags take: texts into values, each refused in a line that says what to write."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from lampq.core.allocating.scores import score
from lampq.core.values.amounts import parse_size
from lampq.core.values.errors import LampqError
from lampq.core.values.score import AUTO

BYTES = "--size is bytes of the model, such as 12MB; the size of images is --image-size {}"
"""What to say to a size of images."""
# The least of what the libraries take.
_SEEDS = 2**32

_Value = TypeVar("_Value")


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number") from err


def number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number") from err


def size_bytes(text: str) -> int:
    """Bytes of a model."""
    if re.fullmatch(r"\d+x\d+", text.lower()):
        raise argparse.ArgumentTypeError(BYTES.format(text))
    return parsed(parse_size)(text)


def parsed(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """The type of a flag whose text lampq reads anywhere else too."""

    def convert(text: str) -> _Value:
        try:
            return parse(text)
        except LampqError as err:
            raise argparse.ArgumentTypeError(str(err)) from err

    return convert


def count(text: str) -> int:
    """A number of samples."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} samples: use at least 1")
    return value


def processes(text: str) -> int:
    """A number of processes."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} processes: use at least 1")
    return value


def seed(text: str) -> int:
    """What random choices start from."""
    value = whole(text)
    if not 0 <= value < _SEEDS:
        raise argparse.ArgumentTypeError(f"{text}: use a number from 0 to {_SEEDS - 1}")
    return value


def image_size(text: str) -> tuple[int, int]:
    """Height and width."""
    height, cross, width = text.lower().partition("x")
    try:
        size = int(height), int(width if cross else height)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write an image size like 224 or 224x224") from err
    return size


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The shape of a sample, and the input it is of, or an empty name."""
    name, _, sides = text.rpartition("=")
    try:
        sides_of = tuple(int(side) for side in sides.lower().split("x"))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write a shape like 3x32x32 or tokens=16") from err
    if min(sides_of) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: every side of a shape is at least 1")
    return name, sides_of


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers like 0.485,0.456,0.406") from err


def mode(text: str) -> str:
    """The name of a score. Packages are asked for those that are not lampq's own."""
    return text if text == AUTO else score(text).name
