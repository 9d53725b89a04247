"""Files and folders that take their names whole: synced, renamed in one step, and the step synced too."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from lampq.core.values import staging
from lampq.core.values.errors import LampqError, OutputError

# What the operating system says when it is the output that fails, and not something the work reads.
_FAILURES = frozenset(
    getattr(errno, name)
    for name in (
        "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EIO", "EMFILE", "ENFILE",
        "EISDIR", "ENOTDIR", "EXDEV", "ENOTEMPTY",
    )
    if hasattr(errno, name)
)  # fmt: skip
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what the operating system has against writing `path`.

    Raises:
        OutputError: The disk is full, the folder read-only, the name too long, and so on.
    """
    try:
        yield
    except LampqError:
        raise
    except OSError as err:
        if isinstance(err, FileNotFoundError) and not Path(path).parent.is_dir():
            raise OutputError(f"the folder {Path(path).parent} does not exist; create it first") from err
        if err.errno not in _FAILURES and isinstance(err.errno, int):
            raise
        raise OutputError(f"{path} cannot be written: {err.strerror or err}; nothing was changed") from err


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path` that becomes `path` when the block ends without an error."""
    path = Path(path)
    with writing(path), staging.temporary(path.parent, suffix=path.suffix) as temporary:
        yield temporary
        publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, which had another file or none; a kill leaves the one or the other."""
    sync(temporary)
    temporary.chmod(0o666 & ~_umask())
    temporary.replace(path)
    sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends without an error.

    A folder that is there changes places with the new one in one step and is then removed. Where the file system
    cannot do that, it steps aside as `NAME.old` first, in sight: a kill at that moment loses nothing.
    """
    path = Path(path)
    with writing(path), staging.temporary(path.parent, directory=True) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        temporary.chmod(0o777 & ~_umask())
        if not os.path.lexists(path):
            temporary.rename(path)
        elif not _exchange(temporary, path):
            _step_aside(temporary, path)
        sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's contents, or the renames in a folder, last through a loss of power."""
    # Windows opens no folder.
    with contextlib.suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _step_aside(temporary: Path, path: Path) -> None:
    names = (f"{path.name}.old{number or ''}" for number in itertools.count())
    old = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step; False where the system or the file system cannot."""
    if sys.platform.startswith("linux"):
        name, places = "renameat2", (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second))
    elif sys.platform == "darwin":
        name, places = "renamex_np", (os.fsencode(first), os.fsencode(second))
    else:
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    return call is not None and call(*places, _RENAME_EXCHANGE) == 0


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
