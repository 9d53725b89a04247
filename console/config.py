"""Flags from a file: long command lines that are kept beside the model. The command line wins."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lampq.console.parsers import near
from lampq.core.values.bounded import read_bytes
from lampq.core.values.errors import RecordError
from lampq.core.values.messages import reason

_FLAG = "--config"
_MOST_BYTES = 1 << 20


def add_flag(sub: argparse.ArgumentParser) -> None:
    """The flag that names the file."""
    sub.add_argument(
        _FLAG,
        metavar="FILE",
        help='TOML file with flags by name: avg-bits = 3, pin = ["head=8"]; a table [VERB] is for that verb alone',
    )


def expanded(words: Sequence[str], verbs: Mapping[str, argparse.ArgumentParser]) -> list[str]:
    """The command line with the flags of its file put in behind the verb, except those that it gives itself.

    Args:
        words: The command line without the program's name.
        verbs: Verb -> its parser.

    Raises:
        RecordError: The file cannot be read, or names a flag that the verb does not have.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument(_FLAG)
    path = finder.parse_known_args(list(words))[0].config
    place = next((index for index, word in enumerate(words) if word in verbs), None)
    if path is None or place is None:
        return list(words)
    verb = words[place]
    settings = _settings(Path(path), verb, verbs)
    own = _given(words[place + 1 :], verbs[verb])
    more = [
        word for name, value in settings.items() for word in _words(Path(path), name, value, verbs[verb], own)
    ]
    return [*words[: place + 1], *more, *words[place + 1 :]]


def _settings(path: Path, verb: str, verbs: Mapping[str, argparse.ArgumentParser]) -> dict[str, Any]:
    """Flag -> value: those at the top, and over them those of the verb's own table."""
    try:
        content = parsed(read_bytes(path, _MOST_BYTES).decode())
    except OSError as err:
        raise RecordError(f"config {path}: {err.strerror or reason(err)}") from err
    except ValueError as err:
        raise RecordError(f"config {path}: {reason(err)}") from err
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    for name in tables:
        if name not in verbs:
            raise RecordError(f"config {path}: [{name}] is no verb{near(name, verbs)}")
    return {name: value for name, value in content.items() if name not in tables} | tables.get(verb, {})


def parsed(text: str) -> dict[str, Any]:
    """TOML as values; the reader is loaded when there is a file to read."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _given(words: Sequence[str], parser: argparse.ArgumentParser) -> set[argparse.Action]:
    """Flags that the command line gives itself, and those that exclude them."""
    flags = parser._option_string_actions
    explicit = set()
    for word in words:
        name = word.partition("=")[0]
        matches = [
            flag for flag in flags if flag == name or (name.startswith("--") and flag.startswith(name))
        ]
        if word[:1] == "-" and not matches:
            matches = [flag for flag in flags if len(flag) == 2 and word.startswith(flag)]
        explicit |= {flags[name]} if name in flags else {flags[flag] for flag in matches}
    for group in parser._mutually_exclusive_groups:
        if explicit & set(group._group_actions):
            explicit |= set(group._group_actions)
    return explicit


def _words(
    path: Path, name: str, value: Any, parser: argparse.ArgumentParser, explicit: set[argparse.Action]
) -> Iterator[str]:
    """One setting as words of a command line; none where that says otherwise."""
    flags = {
        flag.lstrip("-"): action for flag, action in parser._option_string_actions.items() if flag[:2] == "--"
    }
    action = flags.get(name)
    if action is None or name in ("help", "config") or action.help == argparse.SUPPRESS:
        verb = parser.prog.rpartition(" ")[2]
        raise RecordError(f"config {path}: {name!r} is no flag of {verb}{near(name, flags)}")
    if action in explicit:
        return
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise RecordError(f"config {path}: {name} is true or false, not {value!r}")
        if value:
            yield f"--{name}"
        return
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, bool | dict | list) for item in values):
        raise RecordError(f"config {path}: {name} takes a text, a number or a list of them, not {value!r}")
    repeated = isinstance(action, argparse._AppendAction)
    for text in map(str, values) if repeated else [",".join(map(str, values))]:
        yield f"--{name}={text}"
