"""The file of a journal: parts by name, appended as they are finished, and read as if nobody vouched for it.

It is a line that says whose it is, then frames, each some parts with a digest over all of them: what a kill or a full
disk leaves half written is no frame, and is cut off. Nothing in it is ever run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lampq.core.values import staging
from lampq.core.values.bounded import parse_json
from lampq.core.values.errors import LampqError, OutputExistsError, RecordError
from lampq.core.values.publishing import sync

FORGET = "pass --fresh to begin anew"
"""What to do about a journal that does not fit."""

# Seconds of finished work that a kill may lose.
_EVERY_S = 5.0
_MOST_PENDING_BYTES = 1 << 26
_MAGIC = b"lampq.state/1 "
_LONGEST_LINE = 1 << 20
_FRAME = struct.Struct("<Q16s")
_PART = struct.Struct("<IQ")


class JournalFile:
    """Parts of some work.

    The file is made when there is something to keep. Trouble with writing it is told and never ends the work.

    Args:
        path: Where it is, or is to be.
        owner: What the parts depend on, in JSON: a file that is there must say the same.
        tell: Told in one line what a user should know.

    Raises:
        RecordError: The file is of other work, or no such file.
        OutputExistsError: Another run is at it.
    """

    def __init__(self, path: Path, owner: Mapping[str, object], tell: Callable[[str], None]) -> None:
        self.path, self.owner, self._tell = path, owner, tell
        self._line = _MAGIC + json.dumps(owner, sort_keys=True).encode() + b"\n"
        self._handle: io.FileIO | None = None
        self._places: dict[str, tuple[int, int]] = {}
        self._pending: dict[str, bytes] = {}
        self._end, self._written = 0, time.monotonic()
        self._failed = False
        if os.path.lexists(path):
            self._open()

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes | None:
        """The content of a part."""
        if self._handle is not None and name in self._places:
            return _read(self._handle, *self._places[name])
        return self._pending.get(name)

    def add(self, parts: Mapping[str, bytes]) -> None:
        """Take in parts, to be written soon."""
        self._pending.update(parts)
        waiting = sum(map(len, self._pending.values()))
        if time.monotonic() - self._written >= _EVERY_S or waiting > _MOST_PENDING_BYTES:
            self._write()

    def close(self, *, always: bool = False) -> None:
        """Write what is left, where there is a file, or always; other work was short."""
        if self._pending and (always or self._handle is not None):
            self._write()
        if self._handle is not None:
            self._handle.close()

    def remove(self) -> None:
        """The work is done."""
        self._pending.clear()
        if self._handle is not None:
            self._handle.close()
            self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        """Read what another run has kept, if it is of the same work."""
        try:
            if not self.path.is_file() or self.path.is_symlink():
                raise RecordError(f"{self} is no state of a run; remove it, or name another output")
            handle = self._held("r+b")
            size = handle.seek(0, io.SEEK_END)
            line = _read(handle, 0, min(size, _LONGEST_LINE)).partition(b"\n")[0] + b"\n"
        except LampqError:
            raise
        except OSError as err:
            raise RecordError(f"{self} cannot be read ({err.strerror or err}); {FORGET}") from err
        whole = line == self._line
        if not whole and not (size < len(self._line) and self._line.startswith(line[:-1])):
            handle.close()
            raise RecordError(f"{self} {_difference(line, self._line)}; {FORGET}")
        self._handle = handle
        if whole:
            self._scan(handle, size)
        if self._end < size:
            self._tell(f"{self} was cut short: the {len(self._places)} parts that are whole count")
            handle.truncate(self._end)
        elif self._places:
            self._tell(f"going on from {self}: {len(self._places)} parts are finished")

    def _scan(self, handle: io.FileIO, size: int) -> None:
        """Note the places of all parts, up to the first frame that is not whole."""
        self._end = len(self._line)
        while (content := _frame(handle, self._end, size)) is not None:
            try:
                self._note(content, self._end + _FRAME.size)
            except (struct.error, UnicodeDecodeError) as err:
                raise RecordError(f"{self} is damaged; {FORGET}") from err
            self._end += _FRAME.size + len(content)

    def _note(self, content: bytes, start: int) -> None:
        """Note the places of the parts in a frame."""
        at = 0
        while at < len(content):
            name, length = _PART.unpack_from(content, at)
            at += _PART.size
            self._places[content[at : at + name].decode("utf-8", "surrogatepass")] = (
                start + at + name,
                length,
            )
            at += name + length

    def _write(self) -> None:
        self._written = time.monotonic()
        content = b"".join(_part(name, body) for name, body in self._pending.items())
        self._pending = {}
        frame = _FRAME.pack(len(content), _digest(content)) + content
        try:
            if self._handle is None:
                self._handle = self._held("x+b")
                sync(self.path.parent)
            self._append(self._handle, frame if self._end else self._line + frame)
        except OSError as err:
            if not self._failed:
                self._tell(
                    f"{self} cannot be written ({err.strerror or err}): the work goes on, and a kill would lose more"
                )
            self._failed = True
            return
        self._note(content, self._end - len(content))

    def _held(self, mode: str) -> io.FileIO:
        """The file, open, and this run's for as long as it is."""
        handle = io.FileIO(self.path, mode)
        try:
            staging.hold(handle.fileno())
        except BlockingIOError as err:
            handle.close()
            raise OutputExistsError(f"another run keeps {self}; let it end, or name another output") from err
        except OSError:
            # A file system without locks.
            pass
        return handle

    def _append(self, handle: io.FileIO, content: bytes) -> None:
        """Put bytes behind what is there, all of them or none."""
        left = memoryview(content)
        try:
            handle.seek(self._end)
            while left:
                left = left[handle.write(left) :]
            os.fsync(handle.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                handle.truncate(self._end)
            raise
        self._end += len(content)


def _frame(handle: io.FileIO, start: int, size: int) -> bytes | None:
    """The parts of the frame at a place; None where none is whole."""
    head = _read(handle, start, _FRAME.size)
    if len(head) < _FRAME.size:
        return None
    length, digest = _FRAME.unpack(head)
    content = _read(handle, start + _FRAME.size, length) if length <= size - start - _FRAME.size else b""
    return content if content and _digest(content) == digest else None


def _read(handle: io.FileIO, start: int, length: int) -> bytes:
    """Bytes at a place, as many as there are."""
    handle.seek(start)
    pieces = []
    while length and (piece := handle.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _part(name: str, body: bytes) -> bytes:
    key = name.encode("utf-8", "surrogatepass")
    return _PART.pack(len(key), len(body)) + key + body


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _difference(line: bytes, own: bytes) -> str:
    """In what a journal's first line differs from the own one."""
    try:
        there, here = (parse_json(text.removeprefix(_MAGIC).decode()) for text in (line, own))
    except ValueError:
        there = None
    if not line.startswith(_MAGIC) or not isinstance(there, dict):
        return "is no state of a run, or damaged"
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    return f"is the state of other work (another {', '.join(names)})"
