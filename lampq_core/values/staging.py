"""Temporary files beside what they become: hidden, known by their names, and swept where a killed run left them.

A temporary file is locked for as long as its run lives, and the operating system drops the lock with the process,
however that ends. So a file that can be locked is nobody's. This holds on one machine: files of others, and those of
file systems without locks, count as left behind once they have not changed for `OLD_S`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has other locks; there the age decides.
    fcntl = None  # type: ignore[assignment]

OLD_S = 7 * 24 * 3600
"""Seconds after which an unchanged temporary file that cannot be locked belongs to nobody."""

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_NAME = re.compile(r"\.lampq-(?P<host>[0-9a-f]{8})-[a-z0-9_]{8}(?:\.\w{1,16})?")
_LOCK_WAIT_S = 10.0


@contextlib.contextmanager
def temporary(folder: Path, *, suffix: str = "", directory: bool = False) -> Iterator[Path]:
    """A temporary file or folder in `folder`, removed when the block ends unless it was renamed.

    What killed runs left there is removed first.

    Args:
        folder: Where.
        suffix: Ending of its name, for libraries that go by it; a long or odd one is left out.
        directory: Make a folder, not a file.
    """
    sweep(folder)
    path, lock = _create(folder, suffix if re.fullmatch(r"\.\w{1,16}", suffix, re.ASCII) else "", directory)
    try:
        yield path
    finally:
        _remove(path)
        _close(lock)


def sweep(folder: Path) -> None:
    """Remove the temporary files in `folder` whose runs have ended; whatever resists is left alone."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        leftovers = [entry.name for entry in entries if _NAME.fullmatch(entry.name) and _is_plain(entry)]
        for name in leftovers:
            with contextlib.suppress(OSError):
                _remove_abandoned(Path(folder) / name)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Keep other runs from renaming files of a pair in `folder`; False where the file system has no locks.

    Waits a while for a run that is at it, and goes on without the lock if that one hangs. A temporary folder is its
    run's alone, which holds its lock as it is.
    """
    if _NAME.fullmatch(folder.name):
        yield True
        return
    lock = None
    deadline = time.monotonic() + _LOCK_WAIT_S
    while lock is None:
        try:
            lock = _lock(folder)
        except BlockingIOError:
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        except OSError:
            break
        else:
            break
    try:
        yield lock is not None
    finally:
        _close(lock)


def hold(descriptor: int) -> None:
    """Lock an open file for as long as it is open, where there are locks.

    Raises:
        BlockingIOError: Another process holds it.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unchanged_s(path: Path) -> float:
    """Seconds since a file last changed."""
    return time.time() - path.lstat().st_mtime


def _create(folder: Path, suffix: str, directory: bool) -> tuple[Path, int | None]:
    while True:
        prefix = f".lampq-{_HOST}-"
        if directory:
            path = Path(tempfile.mkdtemp(dir=folder, prefix=prefix, suffix=suffix))
        else:
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=suffix)
            os.close(descriptor)
            path = Path(name)
        lock = None
        try:
            lock = _lock(path)
            # Another run may have swept it before it was locked.
            if lock is None or os.path.samestat(os.fstat(lock), path.lstat()):
                return path, lock
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:
            return path, None
        _close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock on a file or folder; None where there are no locks.

    Raises:
        BlockingIOError: Another process holds it.
    """
    if fcntl is None:
        return None
    # Some network file systems lock only what is open for writing, which folders never are.
    access = os.O_RDONLY if path.is_dir() else os.O_RDWR
    descriptor = os.open(path, access | os.O_NONBLOCK)
    try:
        hold(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_plain(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)


def _remove_abandoned(path: Path) -> None:
    match = _NAME.fullmatch(path.name)
    own = match is not None and match["host"] == _HOST
    lock = None
    try:
        lock = _lock(path) if own else None
    except BlockingIOError:
        return
    except OSError:
        pass
    try:
        if lock is not None or unchanged_s(path) > OLD_S:
            _remove(path)
    finally:
        _close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
