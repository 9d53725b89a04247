"""JSON configurations, read with care: each value is checked where it is used, and its place named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from lampq.core.values.bounded import parse_json
from lampq.core.values.errors import PlanError


def parse(text: str, title: str) -> Any:
    """The value of a JSON text.

    Raises:
        PlanError: It is no JSON.
    """
    try:
        return parse_json(text)
    except ValueError as err:
        raise PlanError(f"no configuration for {title}: not valid JSON ({err})") from err


def to_text(data: Any) -> str:
    """JSON for a file."""
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """The value, if it is an object.

    Raises:
        PlanError: It is not.
    """
    if not isinstance(value, dict):
        malformed(where, value, "an object")
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """The value, if it is an array.

    Raises:
        PlanError: It is not.
    """
    if not isinstance(value, list):
        malformed(where, value, "an array")
    return value


def text(value: Any, where: str) -> str:
    """The value, if it is a string.

    Raises:
        PlanError: It is not.
    """
    if not isinstance(value, str):
        malformed(where, value, "a string")
    return value


def bits(value: Any, where: str) -> int:
    """The value, if it is a width that a plan can have.

    Raises:
        PlanError: It is no integer from 1 to 8.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 8:
        malformed(where, value, "a width of 1 to 8 bits")
    return value


def malformed(where: str, value: Any, expected: str) -> NoReturn:
    """Say what was found and what was expected.

    Raises:
        PlanError: Always.
    """
    shown = json.dumps(value, default=str)
    raise PlanError(f"{where} is {shown[:60]}, expected {expected}")
