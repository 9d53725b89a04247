"""The files behind a model: its outline, and its tensors read one at a time from where they lie."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from lampq.adapters.onnx import bounds
from lampq.adapters.onnx.outline import outline
from lampq.core.values.bounded import open_regular
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import reason

# First bytes of files that people give by mistake.
_STRANGERS = (
    (b"PK\x03\x04", "a ZIP archive (PyTorch .pt2 or .pth?)"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the real file with `git lfs pull`"),
)


# A file above this many bytes of which less than one in so many is stored holds no weights.
_LARGE_BYTES, _LEAST_STORED = 1 << 26, 64


class DataFile:
    """A file kept open, read by position. Replacing it on disk later does not change what is read.

    Args:
        path: The file.

    Attributes:
        path: The file.
        size_bytes: Its length when it was opened.
        mostly_holes: Whether a large file was never written: its length says nothing then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: BinaryIO = open_regular(path)
        self.size_bytes = self._handle.seek(0, 2)
        self._lock = threading.Lock()
        self.mostly_holes = _mostly_holes(os.fstat(self._handle.fileno()))

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None:
            handle.close()

    def read(self, offset: int, count: int) -> np.ndarray:
        """`count` bytes from `offset` as uint8.

        Raises:
            AdapterError: The file is shorter than it was.
        """
        buffer = np.empty(count, dtype=np.uint8)
        with self._lock:
            self._handle.seek(offset)
            got = self._handle.readinto(buffer)  # type: ignore[attr-defined]
        if got != count:
            raise AdapterError(f"{self.path} was cut off while in use: {count - got} bytes are missing")
        return buffer

    def outline(self) -> bytes:
        """The outline of the ONNX model in this file (see `outline`)."""
        with (
            mmap.mmap(self._handle.fileno(), 0, access=mmap.ACCESS_READ) as mapping,
            memoryview(mapping) as view,
        ):
            return outline(view, self.path.name)

    def update(self, digest: hashlib._Hash) -> None:
        """Feed the whole file to a hash."""
        for start in range(0, self.size_bytes, 1 << 20):
            digest.update(self.read(start, min(1 << 20, self.size_bytes - start)).data)


class Container:
    """An ONNX model on disk.

    Args:
        path: The .onnx file.

    Attributes:
        path: The .onnx file.
        files: The open files by the name tensors call them; the model's own comes first.

    Raises:
        AdapterError: The file is missing, no ONNX, or damaged, or a tensor's data is not where it should be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = {path.name: _open(path)}
        self._digest: str | None = None
        self._outline = self._read_outline()
        self.parse()

    @property
    def digest(self) -> str:
        """SHA-256 of the file and of the external data files it refers to, in order of their names."""
        if self._digest is None:
            digest = hashlib.sha256()
            own, *others = self.files
            for name in (own, *sorted(others)):
                self.files[name].update(digest)
            self._digest = digest.hexdigest()
        return self._digest

    @property
    def size_bytes(self) -> int:
        """Bytes of the file and of the external data files it refers to."""
        return sum(file.size_bytes for file in self.files.values())

    def parse(self) -> ir.Model:
        """A new model, free to be changed; its tensors are read from the files when they are asked for."""
        try:
            proto = onnx.ModelProto.FromString(self._outline)
            if not proto.HasField("graph") or not proto.graph.node:
                raise AdapterError(f"{self.path} holds no ONNX graph")
            bounds.check(proto)
            for tensor in proto.graph.initializer:
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    # Says what is wrong with an entry; below it would be lost in another error.
                    onnx.external_data_helper.ExternalDataInfo(tensor)
            with silence():
                model = ir.serde.deserialize_model(proto)
            for graph in model.graphs():
                for value in graph.initializers.values():
                    value.const_value = self._attach(value.const_value, value.name)
            for function in (None, *model.functions.values()):
                for node in (model.graph if function is None else function).all_nodes():
                    self._attach_attributes(node)
        except AdapterError as err:
            text = str(err)
            raise AdapterError(text if str(self.path) in text else f"{self.path}: {text}") from err
        # Parsers raise whatever the damage makes them stumble over: to the caller it is one fact.
        except Exception as err:
            raise AdapterError(f"{self.path} is no valid ONNX model: {one_line(err)}") from err
        return model

    def _read_outline(self) -> bytes:
        own = self.files[self.path.name]
        head = own.read(0, min(own.size_bytes, 32)).tobytes()
        what = next((text for magic, text in _STRANGERS if head.startswith(magic)), None)
        if head[4:8] == b"TFL3":
            what = "a TFLite model"
        elif what is None and head and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
            what = "text"
        if what is not None or not head:
            raise AdapterError(f"{self.path} is {what or 'empty'}, not an ONNX model")
        try:
            return own.outline()
        except AdapterError as err:
            raise AdapterError(f"{self.path} is no ONNX model: {err}") from err

    def _attach_attributes(self, node: ir.Node) -> None:
        for name, attribute in tuple(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensor = self._attach(attribute.value, name)
                if tensor is not None and tensor is not attribute.value:
                    node.attributes[name] = ir.AttrTensor(name, tensor)

    def _attach(self, tensor: ir.TensorProtocol | None, name: str | None) -> ir.TensorProtocol | None:
        """The tensor, checked; read from its file on demand where it is external."""
        if tensor is None or isinstance(tensor, ir.StringTensor):
            return tensor
        shape = tuple(int(d) for d in tensor.shape.numpy())
        if any(d < 0 for d in shape):
            raise AdapterError(f"{self.path}: tensor {name!r} has the impossible shape {shape}")
        if not isinstance(tensor, ir.ExternalTensor):
            tensor.numpy()  # Small, and wrong here rather than somewhere later.
            return tensor
        dtype = tensor.dtype
        count = 1
        for d in shape:
            count *= d
        needed = -(-count * dtype.bitwidth // 8)
        file = self._file(str(tensor.location), name)
        if file.mostly_holes:
            raise AdapterError(
                f"{self.path}: tensor {name!r} lies in {file.path.name}, which is mostly holes: "
                "nothing was ever written there"
            )
        offset, length = tensor.offset or 0, tensor.length
        available = max(0, file.size_bytes - offset)
        if offset < 0:
            raise AdapterError(
                f"{self.path}: tensor {name!r} has the impossible offset {offset}; it is damaged"
            )
        if min(available, needed if length is None else length) < needed:
            raise AdapterError(
                f"{self.path}: tensor {name!r} of shape {shape} needs {needed} bytes, but only "
                f"{min(available, length or available)} are in {file.path.name}: it is damaged or cut off"
            )

        def read() -> ir.TensorProtocol:
            data = file.read(offset, needed)
            if dtype.bitwidth < 8:
                return ir.PackedTensor(data, dtype, shape=shape, name=name)
            array = data.view(dtype.numpy().newbyteorder("<")).reshape(shape)
            return ir.Tensor(array, dtype=dtype, name=name)

        return ir.LazyTensor(
            read, dtype, ir.Shape(shape), name=name, metadata_props=dict(tensor.metadata_props)
        )

    def _file(self, location: str, tensor: str | None) -> DataFile:
        """The data file a tensor refers to, which must lie in the model's folder.

        Raises:
            AdapterError: It is missing, or lies elsewhere.
        """
        if location in self.files:
            return self.files[location]
        where = f"{self.path}: tensor {tensor!r} has its data in {location!r}"
        parts = PurePosixPath(location.replace("\\", "/"))
        if not location or parts.is_absolute() or PureWindowsPath(location).drive or ".." in parts.parts:
            raise AdapterError(f"{where}, outside the model's folder; refused")
        folder = self.path.parent
        path = folder / parts
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as err:
            raise AdapterError(f"{where}, which is missing; put it beside the model") from err
        if not real.is_relative_to(folder.resolve()):
            raise AdapterError(
                f"{where}, a link that leaves the model's folder; copy the file beside the model"
            )
        if not real.is_file():
            raise AdapterError(f"{where}, which is no file")
        file = _open(path)
        self.files[location] = file
        return file


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep onnx_ir from logging what an exception, its own or that of the checks to come, says better."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _mostly_holes(status: os.stat_result) -> bool:
    # Systems that do not count blocks have none to miss.
    stored = getattr(status, "st_blocks", status.st_size) * 512
    return status.st_size > _LARGE_BYTES and stored < status.st_size // _LEAST_STORED


def _open(path: Path) -> DataFile:
    if path.is_dir():
        raise AdapterError(f"{path} is a folder, not an ONNX file")
    try:
        return DataFile(path)
    except FileNotFoundError as err:
        raise AdapterError(f"{path}: no such file") from err
    except (OSError, ValueError) as err:
        raise AdapterError(f"{path} cannot be read: {one_line(err)}") from err


def one_line(err: BaseException) -> str:
    """What another library's error started from, on one line."""
    while err.__cause__ is not None:
        err = err.__cause__
    return reason(err)
