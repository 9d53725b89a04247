"""The members of a zip file, as long as every reader would see the same ones.

Python, torch and the system's tools disagree about names that occur twice, names that differ in case, and sizes
that are not those of the file. What is checked by one and loaded by another must leave no room for that.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed

_MOST = 200_000


def read_members(path: Path, archive: zipfile.ZipFile) -> Mapping[str, zipfile.ZipInfo]:
    """Members by their name within the archive's one folder.

    Args:
        path: The file, for messages.
        archive: It, opened.

    Raises:
        AdapterError: Names are ambiguous, members are compressed (PyTorch writes none so), more than 200,000, or
            larger together than the file.
    """
    infos = archive.infolist()
    if len(infos) > _MOST:
        raise AdapterError(f"{path}: {len(infos)} members, more than {_MOST}; refused")
    _refuse_ambiguous(path, infos)
    packed = [info.filename for info in infos if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise AdapterError(f"{path}: {listed(packed)} is compressed, as PyTorch never writes it; refused")
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise AdapterError(f"{path}: its members are larger than the file; refused")
    return {info.filename.partition("/")[2]: info for info in infos}


def _refuse_ambiguous(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    names: set[str] = set()
    for info in infos:
        name = info.filename
        if name.casefold() in names:
            raise AdapterError(f"{path}: {listed([name])} is there twice, or differs only in case; refused")
        names.add(name.casefold())
        if not name.isprintable() or "\\" in name or ".." in name.split("/") or name.startswith("/"):
            raise AdapterError(f"{path}: {listed([name])} is no name of a member; refused")
    folders = {name.partition("/")[0] for name in names}
    if len(folders) > 1 or any("/" not in name for name in names):
        raise AdapterError(f"{path}: its members are not in one folder; refused")
