"""Write a model so that its path holds either the whole of it or what was there before."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from lampq.adapters.onnx import stream
from lampq.core.files import refuse_existing

# A protocol buffer ends at 2 GiB, and is held in memory more than once while it is written and read.
LARGEST_SINGLE_FILE = 1_500_000_000

# Smaller tensors stay in the model file, where tools want to see shapes and constants.
_EXTERNAL_FROM = 1024


@contextlib.contextmanager
def staged(
    model: ir.Model, path: Path, *, force: bool = False, single_file_bytes: int = LARGEST_SINGLE_FILE
) -> Iterator[Path]:
    """The model, complete in a folder beside `path`; it moves to `path` when the block ends without an error.

    Args:
        model: The model. Records of the types of initializers, which repeat what tensors say, are dropped.
        path: Where it is to be.
        single_file_bytes: Models with more bytes of tensors get a data file, `path` and `.data`.
        force: Replace an existing data file; whether the model file may be replaced is up to the caller.

    Yields:
        The staged model file, to be looked at or run, alone in its folder but for its data file.

    Raises:
        OutputExistsError: The model needs a data file, and one is there already.
    """
    for value in model.graph.initializers.values():
        value.type = value.shape = None
    data = path.with_name(f"{path.name}.data")
    single = tensor_bytes(model) <= single_file_bytes
    if not single:
        refuse_existing(data, force=force)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        file = folder / path.name
        if single:
            stream.write(model, file)
        else:
            ir.save(model, file, external_data=data.name, size_threshold_bytes=_EXTERNAL_FROM)
        yield file
        # The data goes first: a model without its data is broken, data without its model is not.
        for source in (folder / data.name, file):
            if source.exists():
                _sync(source)
                source.replace(path.parent / source.name)
        _sync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def size_bytes(file: Path) -> int:
    """Bytes of a staged model with its data."""
    return sum(entry.stat().st_size for entry in file.parent.iterdir())


def tensor_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    return sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)


def _sync(path: Path) -> None:
    # Folders cannot be opened everywhere; where they can, syncing one makes the renames in it last.
    with contextlib.suppress(PermissionError, IsADirectoryError if os.name == "nt" else NotImplementedError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
