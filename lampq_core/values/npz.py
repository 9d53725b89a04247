"""Arrays out of .npz files that nobody vouches for: no pickles, no bombs, no damage that is not one line.

An .npz is a ZIP archive of .npy files. Its own tables say how far it expands, and are held against its size before
anything is unpacked; each array's header is held against the bytes that follow it.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html; ZIP: APPNOTE.TXT 6.3.10, 4.3.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Container
from typing import BinaryIO

import numpy as np

from lampq.core.values.messages import reason

# Arrays may expand to this many bytes, or to so many times the archive's own: plain zeros come to 1,000 times.
_FREE_BYTES = 1 << 26
_MOST_RATIO = 100
_MOST_MEMBERS = 1000
_MOST_TABLE_BYTES = 1 << 20
# The end record of an archive, its longest remark, and the record before it in archives beyond 4 GiB.
_END, _END_BYTES, _LONGEST_REMARK = b"PK\x05\x06", 22, 0xFFFF
_END64, _END64_LOCATOR = b"PK\x06\x06", b"PK\x06\x07"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What damaged archives and array headers can raise.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(
    handle: BinaryIO, wanted: Container[str] | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays of an archive by name.

    Args:
        handle: The open file.
        wanted: Names to read; None reads all.

    Returns:
        The arrays, and the names of all members.

    Raises:
        ValueError: It is no .npz, damaged, holds Python objects, or expands beyond all proportion; says why in a line.
    """
    try:
        size = _check_tables(handle)
        with zipfile.ZipFile(handle) as archive:
            members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            _check_expansion(archive, size)
            chosen = [name for name in members if wanted is None or name in wanted]
            return {name: _array(archive, name, members[name]) for name in chosen}, list(members)
    except _DAMAGE as err:
        why = reason(err)
        if "allow_pickle" in why or "Object arrays" in why:
            why = "it holds Python objects, which are not loaded; save plain arrays"
        raise ValueError(why) from err


def _check_tables(handle: BinaryIO) -> int:
    """Bytes of the archive, whose table of members is of a size worth parsing."""
    size = handle.seek(0, 2)
    start = max(0, size - _END_BYTES - _LONGEST_REMARK)
    handle.seek(start)
    tail = handle.read(size - start)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise ValueError("no ZIP archive, or cut off")
    members, table = struct.unpack_from("<HI", tail, at + 10)
    if tail[max(0, at - 20) : at].startswith(_END64_LOCATOR):
        (place,) = struct.unpack_from("<Q", tail, at - 12)
        handle.seek(min(place, size))
        record = handle.read(56)
        if record[:4] != _END64 or len(record) < 56:
            raise ValueError("its table of members is damaged")
        members, table = struct.unpack_from("<QQ", record, 32)
    if members > _MOST_MEMBERS or table > _MOST_TABLE_BYTES:
        raise ValueError(f"more than {_MOST_MEMBERS:,} arrays")
    handle.seek(0)
    return size


def _check_expansion(archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    if any(entry.compress_type not in _METHODS for entry in entries):
        raise ValueError("compressed in a way that NumPy does not write; save it with np.savez")
    expanded = sum(entry.file_size for entry in entries)
    if expanded > _FREE_BYTES and expanded > _MOST_RATIO * size:
        raise ValueError(
            f"{size:,} bytes expand to {expanded:,}, more than {_MOST_RATIO} times as many; "
            "use np.savez if that is right"
        )


def _array(archive: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo) -> np.ndarray:
    """One member, whose header promises no more than its bytes hold."""
    with archive.open(entry) as member:
        magic = member.read(np.lib.format.MAGIC_LEN)
        if magic not in _HEADERS:
            raise ValueError(f"{name} is no array")
        shape, _, dtype = _HEADERS[magic](member)
    # An axis of a length that no byte stands for would be walked along all the same.
    entries = max(np.prod([max(side, 1) for side in shape], dtype=object), 1)
    if dtype.hasobject:
        raise ValueError("Object arrays")
    if any(side < 0 for side in shape) or entries * max(dtype.itemsize, 1) > max(entry.file_size, 1 << 16):
        raise ValueError(f"{name} promises {entries:,} entries in {entry.file_size:,} bytes")
    with archive.open(entry) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


_HEADERS = {
    np.lib.format.magic(1, 0): np.lib.format.read_array_header_1_0,
    np.lib.format.magic(2, 0): np.lib.format.read_array_header_2_0,
}
