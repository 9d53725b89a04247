"""Files of two parts: a main file, and beside it a large one that is named by its content and that the main one names.

The large one takes its name first. Until the main file follows in a single rename, readers see the old pair, and
afterwards the new one; there is no moment at which parts of two versions meet. What is outdated goes last.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lampq.core.values import staging
from lampq.core.values.files import sha256
from lampq.core.values.publishing import publish

DIGITS = 12
"""Hexadecimal digits of the content's SHA-256 in the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideNames:
    """What the large parts of one main file are called, version after version.

    Attributes:
        stem: Begins every name; main files of one folder differ in it.
        ending: Ends every name: that of its kind.

    >>> SideNames(stem="profile", ending=".npz").of("0123456789abcdef")
    'profile.0123456789ab.npz'
    """

    stem: str
    ending: str

    def of(self, digest: str) -> str:
        """The name of the part with this SHA-256 (hexadecimal)."""
        return f"{as_text(self.stem)}.{digest[:DIGITS]}{self.ending}"

    def digits(self, name: str) -> str | None:
        """The digits in a name of this form, None in others."""
        match = re.fullmatch(r"(.+)\.([0-9a-f]+)(\.\w+)", name, re.DOTALL)
        return match[2] if match and len(match[2]) == DIGITS and name == self.of(match[2]) else None


def as_text(name: str) -> str:
    """A file name as UTF-8 can say it, which is what main files and other tools take."""
    return name.encode("utf-8", "replace").decode("utf-8")


def publish_pair(
    main: Path,
    path: Path,
    side: tuple[Path, str] | None,
    names: SideNames,
    *,
    former: Mapping[str, str] | None = None,
) -> None:
    """Give both parts their names, then remove the large parts that no main file in the folder names any more.

    Args:
        main: The finished main file, temporary.
        path: Its name to be.
        side: The finished large part, temporary, and its SHA-256; None where this version has none.
        names: What the large parts of this main file are called.
        former: Name -> SHA-256 of large parts of earlier versions under names of another form.
    """
    with staging.locked(path.parent):
        if side is not None:
            publish(side[0], path.with_name(names.of(side[1])))
        publish(main, path)
    _remove_outdated(path, names, former or {})


def _remove_outdated(path: Path, names: SideNames, former: Mapping[str, str]) -> None:
    digests = dict(former)
    for file in path.parent.iterdir():
        digits = names.digits(file.name)
        if digits is not None:
            digests[file.name] = digits
    candidates = [entry for entry in digests if not _is_named(entry, path)]
    # A file of that name which does not hold that content is somebody else's.
    outdated = [entry for entry in candidates if _holds(path.with_name(entry), digests[entry])]
    if not outdated:
        return
    with staging.locked(path.parent) as alone:
        for entry in outdated:
            file = path.with_name(entry)
            with contextlib.suppress(OSError):
                # Without the lock, a part that no main file names may be that of a run about to write it.
                if (alone or staging.unchanged_s(file) > staging.OLD_S) and not _is_named(entry, path):
                    file.unlink()


def _holds(file: Path, digest: str) -> bool:
    try:
        return not file.is_symlink() and file.is_file() and sha256(file).startswith(digest)
    except OSError:
        return False


def _is_named(entry: str, path: Path) -> bool:
    """Whether a main file in the folder, copies and renamed ones included, names this part."""
    # Only the end is sure to be written out as it is: JSON escapes what is not ASCII.
    words = ".".join(entry.split(".")[-2:]).encode("ascii", "ignore")
    return any(
        _contains(other, words)
        for other in path.parent.iterdir()
        if other.suffix == path.suffix and not other.name.startswith(".lampq-")
    )


def _contains(file: Path, words: bytes) -> bool:
    if not file.is_file() or file.stat().st_size == 0:
        return False
    try:
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(words) >= 0
    except OSError:
        # Unreadable: it may.
        return True
