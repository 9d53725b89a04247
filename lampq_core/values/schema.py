"""The published JSON Schemas of plan and profile files, and the check that every file passes when it is read.

The files in `schemas/` are the one definition: readers refuse whatever they refuse, with the place in the message.
They use a small part of JSON Schema (draft 2020-12), which this module implements; a test holds it against a complete
implementation. What a schema cannot say (sums, distinct names, shapes that fit) is checked by the records themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from lampq.core.values.errors import RecordError

NAMES = ("plan", "profile")

_SHOWN = 60


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a file format.

    Args:
        name: `plan` or `profile`.

    Raises:
        RecordError: There is no such format.

    >>> schema("plan")["properties"]["schema"]["enum"][0]
    'lampq.plan/2'
    """
    return json.loads(_text(name))


def check(data: Any, name: str) -> None:
    """Hold parsed JSON against the schema of its format.

    Raises:
        RecordError: It does not conform; names the first place that does not.

    >>> check({"schema": "lampq.plan/2"}, "plan")
    Traceback (most recent call last):
        ...
    lampq.core.values.errors.RecordError: malformed: 'mode' is missing
    """
    root = _parsed(name)
    problem = _problem(data, root, root, "")
    if problem:
        raise RecordError(f"malformed: {problem}")


def check_version(stated: Any, *known: str) -> None:
    """Hold the version that a file states against those that are read.

    Args:
        stated: Its `schema`.
        *known: What that may be, `name/number` each.

    Raises:
        RecordError: It is none of them.

    >>> check_version("lampq.plan/9", "lampq.plan/1")
    Traceback (most recent call last):
        ...
    lampq.core.values.errors.RecordError: schema is 'lampq.plan/9', of a later lampq than this one; update lampq
    """
    if stated in known:
        return
    name, _, number = str(stated).rpartition("/")
    kind, wanted = name.removeprefix("lampq."), known[0].rpartition("/")[0].removeprefix("lampq.")
    if kind in NAMES and kind != wanted:
        raise RecordError(f"this is a {kind}, and no {wanted}; `lampq {wanted}` makes one")
    newest = max(int(version.rpartition("/")[2]) for version in known)
    if name == known[0].rpartition("/")[0] and number.isdecimal() and int(number) > newest:
        raise RecordError(f"schema is {stated!r}, of a later lampq than this one; update lampq")
    raise RecordError(f"schema is {stated!r}, expected {' or '.join(map(repr, known))}")


@cache
def _text(name: str) -> str:
    if name not in NAMES:
        raise RecordError(f"no schema is called {name!r}; there are {' and '.join(NAMES)}")
    return (
        resources.files("lampq.core.values")
        .joinpath("schemas", f"{name}.schema.json")
        .read_text(encoding="utf-8")
    )


@cache
def _parsed(name: str) -> dict[str, Any]:
    return json.loads(_text(name))


def _problem(value: Any, rule: Mapping[str, Any], root: Mapping[str, Any], place: str) -> str | None:
    """What is wrong with a value, or None."""
    if "$ref" in rule:
        target = root
        for step in rule["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        problem = _problem(value, target, root, place)
        if problem:
            return problem
    for word, holds, wanted in _WORDS:
        if word in rule and not holds(value, rule[word]):
            return f"{place or 'the file'} is {_shown(value)}; expected {wanted(rule[word])}"
    if "anyOf" in rule:
        problems = [_problem(value, choice, root, place) for choice in rule["anyOf"]]
        if all(problems):
            # The first choice is what people mean; the others are its absence.
            return problems[0]
    if isinstance(value, dict):
        return _problem_of_object(value, rule, root, place)
    if isinstance(value, list) and "items" in rule:
        return _problem_of_list(value, rule["items"], root, place)
    return None


def _problem_of_object(
    value: dict[str, Any], rule: Mapping[str, Any], root: Mapping[str, Any], place: str
) -> str | None:
    for key in rule.get("required", ()):
        if key not in value:
            return f"{place + ': ' if place else ''}{key!r} is missing"
    for key, inner in rule.get("properties", {}).items():
        if key in value:
            problem = _problem(value[key], inner, root, f"{place}.{key}" if place else key)
            if problem:
                return problem
    return None


def _problem_of_list(
    value: list[Any], rule: Mapping[str, Any], root: Mapping[str, Any], place: str
) -> str | None:
    # Statistics are long lists of plain numbers; these need no second look each.
    if rule == {"type": "number"} and set(map(type, value)) <= {int, float}:
        return None
    for index, entry in enumerate(value):
        problem = _problem(entry, rule, root, f"{place}[{index}]")
        if problem:
            return problem
    return None


def _is(value: Any, kinds: str | list[str]) -> bool:
    return any(_KINDS[kind](value) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": _number,
    "integer": lambda value: _number(value) and (isinstance(value, int) or value.is_integer()),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

# Keyword, whether a value keeps to it, and in words what it asks for. A keyword about one type lets others pass.
_WORDS: tuple[tuple[str, Callable[[Any, Any], bool], Callable[[Any], str]], ...] = (
    ("type", _is, lambda kinds: kinds if isinstance(kinds, str) else " or ".join(kinds)),
    ("const", lambda value, only: type(value) is type(only) and value == only, repr),
    (
        "enum",
        lambda value, some: isinstance(value, str) and value in some,
        lambda some: f"one of {', '.join(some)}",
    ),
    ("minimum", lambda value, least: not _number(value) or value >= least, lambda least: f"at least {least}"),
    ("maximum", lambda value, most: not _number(value) or value <= most, lambda most: f"at most {most}"),
    (
        "minLength",
        lambda value, least: not isinstance(value, str) or len(value) >= least,
        lambda _: "some text",
    ),
    (
        "pattern",
        lambda value, form: not isinstance(value, str) or re.search(form, value) is not None,
        lambda form: f"text of the form {form}",
    ),
    (
        "minItems",
        lambda value, least: not isinstance(value, list) or len(value) >= least,
        lambda least: f"at least {least} entries",
    ),
    (
        "maxItems",
        lambda value, most: not isinstance(value, list) or len(value) <= most,
        lambda most: f"at most {most} entries",
    ),
)
