"""Archives of torch.export (.pt2), copied with nothing in them but a checked program and its tensors.

Torch unpickles, compiles and runs what it meets in such an archive: sample inputs, weights of an older format, objects,
compiled code; and where it refuses to unpickle, it tries again without the refusal. It is handed a copy that holds
none of these.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lampq.adapters.torch.program_text import clean_program
from lampq.adapters.torch.zip_members import read_members
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed

# Some 60 bytes of memory for each value of a JSON text.
_LARGEST_JSON, _MOST_VALUES = 64 << 20, 3_000_000
_MODEL = re.compile(r"models/([^/]+)\.json")
_TENSORS = {"weights": re.compile(r"weight_\d+"), "constants": re.compile(r"tensor_\d+")}
_IGNORED = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|data/sample_inputs/[^/]+\.pt|extra/.+"
)
# Bytes of a number by its type in the archive (torch._export.serde.schema.ScalarType).
_NUMBER_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2}


def copy_program(path: Path) -> io.BytesIO:
    """The same program in an archive that torch.export.load may be given.

    Raises:
        AdapterError: Something in the archive is no part of a program, or would run code.
    """
    with zipfile.ZipFile(path) as archive:
        members = read_members(path, archive)
        name = _program_name(path, members)
        program = clean_program(path, _json(path, archive, members[f"models/{name}.json"]))
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as clean:
            # Sample inputs are a pickle; an empty one stands for none.
            for member, text in {
                "archive_format": "pt2",
                "archive_version": "0",
                ".data/version": "6\n",
            }.items():
                clean.writestr(f"model/{member}", text)
            clean.writestr("model/byteorder", "little")
            clean.writestr("model/data/sample_inputs/model.pt", b"")
            clean.writestr("model/models/model.json", json.dumps(program))
            for kind in _TENSORS:
                _copy_tensors(path, archive, members, (kind, name), clean)
    copy.seek(0)
    return copy


def _program_name(path: Path, members: Mapping[str, zipfile.ZipInfo]) -> str:
    if any(member.startswith("data/aotinductor/") for member in members):
        raise AdapterError(
            f"{path}: holds compiled code; refused. Save the program that torch.export gave instead"
        )
    names = [match[1] for member in members if (match := _MODEL.fullmatch(member))]
    if len(names) != 1:
        raise AdapterError(
            f"{path}: holds {len(names)} programs of the present format; "
            f"export it again with a recent torch.export.save"
        )
    name = names[0]
    known = {f"models/{name}.json", *(f"data/{kind}/{name}_{kind}_config.json" for kind in _TENSORS)}
    strange = [member for member in members if member not in known and not _is_known(member)]
    if strange:
        raise AdapterError(
            f"{path}: {listed(strange)} is no part of a program of the present format; refused. "
            f"Export it again with a recent torch.export.save"
        )
    return name


def _is_known(member: str) -> bool:
    folder, _, name = member.rpartition("/")
    tensor = any(folder == f"data/{kind}" and names.fullmatch(name) for kind, names in _TENSORS.items())
    return tensor or _IGNORED.fullmatch(member) is not None


def _json(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> dict[str, Any]:
    if info is None or info.file_size > _LARGEST_JSON:
        raise AdapterError(f"{path}: a description of its tensors is missing, or the program is too large")
    content = archive.read(info)
    if sum(map(content.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise AdapterError(f"{path}: a program of more than {_MOST_VALUES} values; refused")
    data = json.loads(content)
    if not isinstance(data, dict):
        raise AdapterError(f"{path}: no readable exported program ({info.filename} is no object)")
    return data


def _copy_tensors(
    path: Path,
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    place: tuple[str, str],
    clean: zipfile.ZipFile,
) -> None:
    kind, name = place
    config = _json(path, archive, members.get(f"data/{kind}/{name}_{kind}_config.json"))["config"]
    records, files = {}, set()
    for entry, record in config.items():
        file = str(record["path_name"])
        if record.get("use_pickle") or not _TENSORS[kind].fullmatch(file):
            raise AdapterError(
                f"{path}: {listed([entry])} is pickled, and loading it could run code; refused"
            )
        if not re.fullmatch(r"[\w.\-]{1,500}", entry):
            raise AdapterError(f"{path}: {listed([entry])!r} is no name; refused")
        meta = _plain_meta(path, entry, record["tensor_meta"], members[f"data/{kind}/{file}"].file_size)
        records[entry] = {
            "path_name": file, "is_param": record["is_param"] is True, "use_pickle": False, "tensor_meta": meta,
        }  # fmt: skip
        files.add(file)
    for file in sorted(files):
        clean.writestr(f"model/data/{kind}/{file}", archive.read(members[f"data/{kind}/{file}"]))
    clean.writestr(f"model/data/{kind}/model_{kind}_config.json", json.dumps({"config": records}))


def _plain_meta(path: Path, entry: str, meta: Mapping[str, Any], held: int) -> dict[str, Any]:
    """Type and place of a tensor, which must lie within the `held` bytes of its member."""
    number = _NUMBER_BYTES.get(meta["dtype"])
    sizes, strides = ([_whole(path, entry, size) for size in meta[field]] for field in ("sizes", "strides"))
    offset = _whole(path, entry, meta["storage_offset"])
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if number is None or str(meta["device"]["type"]) not in ("cpu", "cuda"):
        raise AdapterError(f"{path}: {entry} is of a type or on a device that is not known; refused")
    fits = (last + 1) * number <= held and math.prod(sizes) * number <= held
    if not (fits or math.prod(sizes) == 0) or len(sizes) > 64:
        raise AdapterError(f"{path}: {entry} is larger than what the file holds of it; refused")
    return {
        "dtype": meta["dtype"],
        "sizes": [{"as_int": size} for size in sizes],
        "requires_grad": meta["requires_grad"] is True,
        "device": {"type": str(meta["device"]["type"]), "index": None},
        "strides": [{"as_int": stride} for stride in strides],
        "storage_offset": {"as_int": offset},
        "layout": 7,
    }


def _whole(path: Path, entry: str, size: Mapping[str, Any]) -> int:
    value = size["as_int"]
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise AdapterError(f"{path}: {entry} has a size of {str(value)[:40]}; refused")
    return value
