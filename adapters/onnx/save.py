"""Write a model so that its path holds either the whole of it or what was there before."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from lampq.adapters.onnx import stream
from lampq.core.values import staging
from lampq.core.values.files import sha256
from lampq.core.values.publishing import writing
from lampq.core.values.side_files import SideNames, as_text, publish_pair

# A protocol buffer ends at 2 GiB, and is held in memory more than once while it is written and read.
LARGEST_SINGLE_FILE = 1_500_000_000

# Smaller tensors stay in the model file, where tools want to see shapes and constants.
_EXTERNAL_FROM = 1024
# What names the place of such a tensor, at most: a file name of up to 255 bytes, an offset and a length.
PLACE_BYTES = 330


@contextlib.contextmanager
def staged(model: ir.Model, path: Path, *, single_file_bytes: int = LARGEST_SINGLE_FILE) -> Iterator[Path]:
    """The model, complete in a folder beside `path`; it moves to `path` when the block ends without an error.

    Args:
        model: The model. Records of the types of initializers, which repeat what tensors say, are dropped.
        path: Where it is to be; whether a file there may be replaced is up to the caller.
        single_file_bytes: Models with more bytes of tensors get a data file, named by its content: `path` and
            `.0123456789ab.data`. Those of earlier versions are removed.

    Yields:
        The staged model file, to be looked at or run, alone in its folder but for its data file.

    Raises:
        OutputError: The disk is full, the folder read-only, and so on.
    """
    drop_types(model)
    names = SideNames(stem=path.name, ending=".data")
    with writing(path), staging.temporary(path.parent, directory=True) as folder:
        file = folder / as_text(path.name)
        side = None
        if tensor_bytes(model) <= single_file_bytes:
            stream.write(model, file)
        else:
            side = _save_pair(model, file, names)
        yield file
        publish_pair(file, path, side, names)


def _save_pair(model: ir.Model, file: Path, names: SideNames) -> tuple[Path, str] | None:
    """Write a model and its data file; returns the latter and its SHA-256, or None if all tensors are small."""
    # The name follows from data whose places the model must hold before: one of equal length keeps them.
    provisional = names.of(secrets.token_hex(32))
    ir.save(model, file, external_data=provisional, size_threshold_bytes=_EXTERNAL_FROM)
    data = file.with_name(provisional)
    if data.stat().st_size == 0:
        data.unlink()
        return None
    digest = sha256(data)
    file.write_bytes(file.read_bytes().replace(provisional.encode(), names.of(digest).encode()))
    return data.rename(file.with_name(names.of(digest))), digest


def is_external(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor goes to the data file, where there is one."""
    return tensor.nbytes >= _EXTERNAL_FROM


def drop_types(model: ir.Model) -> None:
    """Drop the records of the types of initializers."""
    for value in model.graph.initializers.values():
        value.type = value.shape = None


def size_bytes(file: Path) -> int:
    """Bytes of a staged model with its data."""
    return sum(entry.stat().st_size for entry in file.parent.iterdir())


def tensor_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    return sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)
