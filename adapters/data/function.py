"""Batches that a function of the user's yields."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lampq.adapters.data.arrays import ArrayReader, check_labels, prepare
from lampq.adapters.data.batch import Batch, join, rebatch
from lampq.adapters.data.preprocess import Preprocess
from lampq.core.values.errors import AdapterError, LampqError
from lampq.core.values.input_spec import InputSpec


def load_function(text: str) -> Callable[[], Any]:
    """Import what `package.module:name` or `path/to/file.py:name` names.

    The current folder, or the file's, can be imported from meanwhile. This runs the module's code.

    Raises:
        AdapterError: The module, file or name is not there, the import fails, or it is no function.
    """
    place, _, name = text.rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    try:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError as err:
        raise AdapterError(f"{place} has no {name}; write module:function or path/file.py:function") from err
    if not callable(found):
        raise AdapterError(f"{text} is a {type(found).__name__}, no function")
    return found


def _import_module(name: str) -> Any:
    with _importable(Path.cwd()):
        try:
            return importlib.import_module(name)
        except Exception as err:
            raise AdapterError(f"module {name} cannot be imported ({_last_line(err)})") from err


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise AdapterError(f"{path}: no such file")
    # Named by its full path, so that files of the same name do not meet; registered, as dataclasses need it.
    name = f"_lampq_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AdapterError(f"{path}: not importable as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _importable(path.resolve().parent):
        try:
            spec.loader.exec_module(module)
        except Exception as err:
            del sys.modules[name]
            raise AdapterError(f"{path} cannot be imported ({_last_line(err)})") from err
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Imports find modules of `folder` after everything installed."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _last_line(err: Exception) -> str:
    text = str(err).strip()
    return f"{type(err).__name__}: {text.splitlines()[-1]}" if text else type(err).__name__


@dataclass(slots=True, kw_only=True, eq=False)
class FunctionReader:
    """The batches of a function, called anew for every pass.

    Attributes:
        function: Returns an iterable of x, or (x, y); must give the same samples each time.
        source: Its name, for messages.
        spec: The model's input.
        preprocess: For uint8 images; floats are taken as they are.
        limit: Samples to take from the beginning, or None for all.
        threads: Worker threads for images.
    """

    function: Callable[[], Any]
    source: str
    spec: InputSpec
    preprocess: Preprocess
    limit: int | None
    threads: int
    labels: None = None
    _count: int | None = field(default=None, init=False)
    _digest: str | None = field(default=None, init=False)

    def count(self) -> int:
        """Number of samples; takes a pass over them if none was made yet."""
        if self._count is None:
            for _ in self._pass():
                pass
        return self._count or 0

    def digest(self) -> str:
        """SHA-256 over the samples and labels as the model gets them; may take a pass like `count`."""
        self.count()
        return self._digest or ""

    def batches(self, size: int) -> Iterator[Batch]:
        """Samples in the function's order, `size` at a time whatever the size of its own batches."""
        return rebatch(self._pass(), size)

    def _pass(self) -> Iterator[Batch]:
        """One pass; the first complete one counts and hashes, later ones must agree in number."""
        hashes = (hashlib.sha256(), hashlib.sha256()) if self._digest is None else None
        seen = 0
        labelled: bool | None = None
        for item in self._items():
            batch = self._batch(item)
            if self.limit is not None:
                rest = self.limit - seen
                batch = Batch(batch.inputs[:rest], None if batch.labels is None else batch.labels[:rest])
            if not len(batch.inputs):
                continue
            if labelled not in (None, batch.labels is not None):
                raise AdapterError(f"data {self.source}: yields labels with some batches and not with others")
            labelled = batch.labels is not None
            if hashes is not None:
                hashes[0].update(np.ascontiguousarray(batch.inputs).data)
                hashes[1].update(b"" if batch.labels is None else batch.labels.astype("<i8").data)
            seen += len(batch.inputs)
            yield batch
            if seen == self.limit:
                break
        if not seen:
            raise AdapterError(f"data {self.source}: yields no samples")
        if self._count not in (None, seen):
            raise AdapterError(
                f"data {self.source}: {seen} samples now, {self._count} before; yield the same at every call"
            )
        self._count = seen
        if hashes is not None:
            # Apart, so that the function may change the size of its batches.
            self._digest = hashlib.sha256(hashes[0].digest() + hashes[1].digest()).hexdigest()

    def _items(self) -> Iterator[Any]:
        """What the function yields, its own errors turned into ours."""
        try:
            yield from self.function()
        except LampqError:
            raise
        except Exception as err:
            raise AdapterError(f"data {self.source}: the function fails ({_last_line(err)})") from err

    def _batch(self, item: Any) -> Batch:
        pair = item if isinstance(item, tuple | list) else (item,)
        if isinstance(item, dict | str | bytes) or len(pair) not in (1, 2):
            raise AdapterError(f"data {self.source}: yields {type(item).__name__}; yield x, or (x, y)")
        try:
            arrays = [np.asarray(part) for part in pair]
        except Exception as err:
            raise AdapterError(f"data {self.source}: yields no arrays ({_last_line(err)})") from err
        inputs, transform, _ = prepare(arrays[0], self.spec, self.preprocess, self.source)
        labels = check_labels(arrays[1], len(inputs), self.source) if len(arrays) == 2 else None
        everything = np.arange(len(inputs))
        reader = ArrayReader(
            inputs=inputs,
            labels=labels,
            chosen=everything,
            transform=transform,
            threads=self.threads,
            source=self.source,
        )
        return join(list(reader.batches(max(len(inputs), 1)))) if len(inputs) else Batch(inputs, labels)
