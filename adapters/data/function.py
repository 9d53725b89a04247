"""A function of the user's, by the text that names it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lampq.core.values.errors import AdapterError


def load_function(text: str) -> Callable[..., Any]:
    """Import what `package.module:name` or `path/to/file.py:name` names.

    The current folder, or the file's, can be imported from meanwhile. This runs the module's code.

    Raises:
        AdapterError: The module, file or name is not there, the import fails, or it is no function.
    """
    place, _, name = text.rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    try:
        function: object = module
        for part in name.split("."):
            function = getattr(function, part)
    except AttributeError as err:
        raise AdapterError(f"{place} has no {name}; write module:function or path/file.py:function") from err
    if not callable(function):
        raise AdapterError(f"{text} is a {type(function).__name__}, no function")
    return function


def _import_module(name: str) -> Any:
    with _importable(Path.cwd()):
        try:
            return importlib.import_module(name)
        except Exception as err:
            raise AdapterError(f"module {name} cannot be imported ({last_line(err)})") from err


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
            raise AdapterError(f"{path} cannot be imported ({last_line(err)})") from err
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


def last_line(err: Exception) -> str:
    """The kind of an error and the last line of what it says."""
    text = str(err).strip()
    return f"{type(err).__name__}: {text.splitlines()[-1]}" if text else type(err).__name__
