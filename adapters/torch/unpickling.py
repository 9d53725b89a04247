"""PyTorch's pickles, read without calling anything but what makes tensors.

torch.load(weights_only=True) calls a short list of functions. What training scripts leave beside the weights (NumPy
scalars and arrays, argparse's options) is added to it as stand-ins that do nothing: no function of NumPy is ever
called, because numpy.ndarray itself takes raw memory.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import mmap
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lampq.adapters.torch.zip_members import read_members
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed, reason

# torch's unpickler takes about a microsecond for each byte; a state dict has some 120 bytes for each tensor.
LARGEST_PICKLE = 1 << 20
# The old format states no length; an operation is read in one or two pieces.
_MOST_READS = 1 << 19
_STAND_INS = frozenset(
    {"argparse.Namespace", "numpy.dtype", "numpy.ndarray"}
    | {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")}
)
# Allowed by torch, but fills as much memory as the file names.
_FILLS_MEMORY = b"\nbytearray\n"


class _StandIn:
    """An object of a checkpoint that is no tensor: made and filled without effect."""

    def __new__(cls, *_: object) -> _StandIn:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None:
        """Nothing is kept."""

    def __setstate__(self, state: object) -> None:
        """Nothing is kept."""


def load_pickle(path: Path) -> Any:
    """What torch.save wrote, on the CPU.

    Raises:
        AdapterError: It is damaged, too long, or would run code.
    """
    zipped = zipfile.is_zipfile(path)
    try:
        _check_zip(path) if zipped else _refuse_bytearray(path)
        stand_ins: list[Any] = [(_StandIn, name) for name in sorted(_STAND_INS)]
        with torch.serialization.safe_globals(stand_ins), _quiet():
            if zipped:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with _Counted(path) as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except AdapterError:
        raise
    except pickle.UnpicklingError as err:
        raise AdapterError(f"weights {path}: {_refusal(path, err)}") from err
    # The unpickler stumbles over a damaged file in every way there is, MemoryError and OverflowError included.
    except Exception as err:
        raise AdapterError(f"weights {path}: no readable PyTorch checkpoint ({reason(err)})") from err


def check_pickle(path: Path) -> None:
    """Refuse a checkpoint, before another library reads it, for what `load_pickle` would refuse it for.

    Raises:
        AdapterError: It is too long, damaged, or fills memory.
    """
    if not zipfile.is_zipfile(path):
        load_pickle(path)
        return
    try:
        _check_zip(path)
    except (zipfile.BadZipFile, OSError, ValueError) as err:
        raise AdapterError(f"weights {path}: no readable PyTorch checkpoint ({reason(err)})") from err


class _Counted(io.BufferedReader):
    """A file that may be read from so many times, for pickles without a stated length."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _MOST_READS
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise _too_long(self._path)
        return super().read(size)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = read_members(path, archive)
        for name, info in members.items():
            if name.endswith(".pkl"):
                if info.file_size > LARGEST_PICKLE:
                    raise _too_long(path)
                if _FILLS_MEMORY in archive.read(info):
                    raise _fills_memory(path)


def _refuse_bytearray(path: Path) -> None:
    if path.stat().st_size == 0:
        raise AdapterError(f"weights {path}: no readable PyTorch checkpoint (an empty file)")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_FILLS_MEMORY) >= 0:
            raise _fills_memory(path)


def _too_long(path: Path) -> AdapterError:
    return AdapterError(
        f"weights {path}: its pickle is longer than {LARGEST_PICKLE >> 20} MiB or half a million steps; save the "
        f"weights alone with torch.save(model.state_dict(), ...) or as safetensors"
    )


def _fills_memory(path: Path) -> AdapterError:
    return AdapterError(f"weights {path}: holds a bytearray, which fills memory; save the weights alone")


def _refusal(path: Path, err: Exception) -> str:
    """Why an unpickler that runs no code gave up."""
    # Functions from outside torch say most about what was saved.
    unsafe = sorted(_globals(path) - _STAND_INS, key=lambda name: (name.startswith("torch."), name))
    if not unsafe:
        return f"no readable PyTorch checkpoint ({reason(err)})"
    return (
        f"loading it would run code ({listed(unsafe)}); save the weights alone with "
        f"torch.save(model.state_dict(), ...) or as safetensors"
    )


def _globals(path: Path) -> set[str]:
    """The functions and classes that a checkpoint would look up and call, apart from those torch holds safe."""
    try:
        if zipfile.is_zipfile(path):
            return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        return _legacy_globals(path)
    # Only a message is made of this; a file too damaged to be looked through has a plainer one.
    except Exception:
        return set()


def _legacy_globals(path: Path) -> set[str]:
    names: set[str] = set()
    texts: list[str] = []
    with contextlib.suppress(ValueError), path.open("rb") as file:
        # The old format is a few pickles one after the other; the interesting one may be any of them, and raw
        # tensors follow.
        for operation, value, _ in itertools.islice(_operations(file), _MOST_READS >> 1):
            if operation.name == "GLOBAL":
                names.add(str(value).replace(" ", "."))
            elif operation.name == "STACK_GLOBAL" and len(texts) >= 2:
                names.add(".".join(texts[-2:]))
            elif isinstance(value, str):
                texts.append(value)
    return {
        name for name in names if not name.startswith(("torch._utils._rebuild", "collections.OrderedDict"))
    }


def _operations(file: Any) -> Iterator[tuple[Any, Any, Any]]:
    while file.peek(1):
        yield from pickletools.genops(file)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Old checkpoints use storage classes that torch deprecates; that is no news to who reads one.
        warnings.simplefilter("ignore")
        yield
