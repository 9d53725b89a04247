"""The index of a checkpoint in several files: which tensor is in which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.files import read_json
from lampq.core.values.messages import listed

INDEX = ".index.json"


def read_index(path: Path) -> tuple[Mapping[str, str], tuple[Path, ...]]:
    """Tensor -> file name, and the files, all of them beside the index.

    Raises:
        AdapterError: It is no index, or names a file that is missing or not in its folder.
    """
    try:
        places = read_json(path, "index")["weight_map"]
        names = sorted(set(places.values()))
    except LampqError as err:
        raise AdapterError(str(err)) from err
    except (KeyError, TypeError, AttributeError) as err:
        raise AdapterError(f"index {path}: has no weight_map") from err
    for name in names:
        plain = isinstance(name, str) and Path(name).name == name and name not in ("", "..")
        if not plain or name.endswith(INDEX):
            raise AdapterError(f"index {path}: the shard {name!r:.100} lies outside the folder; refused")
        if not (path.parent / name).is_file():
            raise AdapterError(
                f"index {path}: the shard {listed([name])} is missing; put all {len(names)} beside the index"
            )
        refuse_link_out(path.parent / name)
    return places, tuple(path.parent / name for name in names)


def refuse_link_out(path: Path) -> None:
    """Refuse a link that leads out of the folder it is in.

    The cache of Hugging Face keeps a snapshot's files as links to `blobs` beside it: that is one model too.

    Raises:
        AdapterError: It does.
    """
    folder = path.parent.resolve()
    homes = [folder]
    if folder.parent.name == "snapshots":
        homes.append(folder.parent.parent / "blobs")
    if not any(path.resolve().is_relative_to(home) for home in homes):
        raise AdapterError(f"{path}: is a link out of its folder; refused. Put the file itself there")
