"""Outputs that may not be written, seen before any work: the one place that compares what is written with what is read.

A clash is refused whether overwriting was asked for or not: an output that is an input, under another name, through a
link or as a hard link; that lies in a folder of inputs, or would replace one that holds an input; two outputs that are
one; and devices, pipes and sockets, which are not to be replaced by files.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lampq.core.values.errors import OutputError, OutputExistsError

_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file or folder that is to be written.

    Attributes:
        path: Where.
        ending: What its name must end in, "" for anything.
        marker: A file that tells such folders, where the output may be a folder: one without it is never replaced.
        side_length: Characters that the names of its side files have more than its own.
    """

    path: Path
    ending: str = ""
    marker: str | None = None
    side_length: int = 0

    @classmethod
    def profile(cls, path: Path) -> Output:
        """A profile: JSON, whose arrays take its name with their digest in place of the ending."""
        return cls(path=Path(path), ending=".json", side_length=len("0123456789ab.npz") - len("json"))


def refuse_clashes(outputs: Sequence[Output], reads: Iterable[Path] = (), *, force: bool) -> None:
    """Stop before any work when an output could not, or must not, be written.

    Args:
        outputs: All that the command writes.
        reads: All files and folders that it reads; looked at only where there is something to replace.
        force: Whether outputs may replace what is there, inputs aside.

    Raises:
        OutputExistsError: An output clashes with an input or another output, or exists and `force` is false, or is
            a folder that it may not replace.
        OutputError: It could never be written: its folder is missing or read-only, its name is too long or ends
            otherwise than it must, or it is a device.
    """
    for first, second in itertools.combinations(outputs, 2):
        _refuse_pair(first.path, second.path)
    sources = tuple(reads) if any(os.path.lexists(output.path) for output in outputs) else ()
    for output in outputs:
        if output.ending and not output.path.name.endswith(output.ending):
            raise OutputError(f"{output.path}: name a {output.ending} file")
        if os.path.lexists(output.path):
            _refuse_replacing(output, sources, force=force)
        _refuse_impossible(output)


def _refuse_pair(first: Path, second: Path) -> None:
    if _same(first, second):
        raise OutputExistsError(
            f"{first} and {second} are one file, and both are to be written; name another"
        )
    for inner, outer in ((first, second), (second, first)):
        if _within(inner, outer):
            raise OutputExistsError(f"{inner} lies in {outer}, and both are to be written; name another")


def _refuse_replacing(output: Output, sources: Sequence[Path], *, force: bool) -> None:
    path = output.path
    if path.exists() and not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
        raise OutputExistsError(f"{path} is a device, pipe or socket, and is kept; name a file")
    for source in sources:
        if _same(path, source):
            raise OutputExistsError(f"{path} is what is read; name another file")
        if _within(path, source):
            raise OutputExistsError(
                f"{path} lies in {source}, which is read; name another file, or remove it"
            )
        if path.is_dir() and _within(source, path):
            raise OutputExistsError(f"{path} holds {source}, which is read; name another")
    if not force:
        raise OutputExistsError(f"{path} exists; pass --force (force=True) to overwrite it")
    if path.is_dir() and output.marker is None:
        raise OutputExistsError(f"{path} is a folder; name a file")
    if path.is_dir() and any(path.iterdir()) and not (path / str(output.marker)).is_file():
        raise OutputExistsError(f"{path} is a folder without {output.marker}, and is kept; name another")


def _refuse_impossible(output: Output) -> None:
    folder, name = output.path.parent, output.path.name
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} cannot be written to; name another")
    longest = _longest_name(folder) - max(0, output.side_length)
    if len(os.fsencode(name)) > longest:
        raise OutputError(f"{name[:32]}...: the name has {len(os.fsencode(name))} bytes, more than {longest}")


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return _LONGEST_NAME


def _same(first: Path, second: Path) -> bool:
    """Whether two paths are one file: by name, through links, or as hard links."""
    try:
        return first.samefile(second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def _within(inner: Path, outer: Path) -> bool:
    """Whether a path lies below another, links followed."""
    return Path(os.path.realpath(outer)) in Path(os.path.realpath(inner)).parents
