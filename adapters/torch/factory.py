"""Modules made by the user's own code: `file.py:factory` or `package.module:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch

from lampq.core.values.errors import AdapterError

Made = TypeVar("Made")


def build(source: str) -> torch.nn.Module:
    """Import a factory and call it.

    Args:
        source: `path/to/file.py:factory` or `package.module:factory`; the factory takes no arguments and
            returns an `nn.Module`, or is one.

    Raises:
        AdapterError: There is no such file, module or factory, it fails, or it returns something else.
    """
    place, _, name = source.rpartition(":")
    holder = _import_file(Path(place), source) if place.endswith(".py") else _import_module(place, source)
    factory = getattr(holder, name, None)
    if factory is None:
        named = [n for n, v in vars(holder).items() if callable(v) and not n.startswith("_")]
        offered = (
            ", ".join(n for n in named if getattr(holder, n).__module__ == holder.__name__)
            or "nothing callable"
        )
        raise AdapterError(f"{source}: {place} has no {name}; it has {offered}")
    if isinstance(factory, torch.nn.Module):
        return factory
    if not callable(factory):
        raise AdapterError(
            f"{source}: {name} is a {type(factory).__name__}; name a function that returns a module"
        )
    module = _guarded(factory, source, "the factory failed")
    if not isinstance(module, torch.nn.Module):
        raise AdapterError(f"{source} returned a {type(module).__name__}; it must return an nn.Module")
    return module


def _import_file(path: Path, source: str) -> ModuleType:
    if not path.is_file():
        raise AdapterError(f"{source}: no file {path}")
    spec = importlib.util.spec_from_file_location(f"lampq_factory_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise AdapterError(f"{source}: {path} is no Python file")
    holder = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of the file look their own module up.
    sys.modules[spec.name] = holder
    # The file may import its neighbours, as it would when run as a script.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        _guarded(lambda: spec.loader.exec_module(holder), source, "the file cannot be imported")  # type: ignore[union-attr]
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return holder


def _import_module(place: str, source: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise AdapterError(f"{source}: write file.py:factory or package.module:factory")
    return _guarded(lambda: importlib.import_module(place), source, "the module cannot be imported")


def _guarded(call: Callable[[], Made], source: str, what: str) -> Made:
    """The result of the user's code; what goes wrong there is told by its traceback's last line and place."""
    try:
        return call()
    except Exception as err:
        last = traceback.format_exception_only(err)[-1].strip()
        frames = traceback.extract_tb(err.__traceback__)
        at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        raise AdapterError(f"{source}: {what}: {last}{at}") from err
