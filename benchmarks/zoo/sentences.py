"""Sentences that come with Python, for models of texts."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Iterable
from types import ModuleType

import numpy as np

# Modules that say or open something when they are imported.
_TALKING = {"antigravity", "idlelib", "this", "turtledemo"}


def sentences() -> list[str]:
    """Sentences of the reference of the Python language, which comes with it, in a drawn order."""
    from pydoc_data.topics import topics

    return _shuffled(topics.values())


def descriptions() -> list[str]:
    """Sentences that describe the functions and classes of the standard library, in a drawn order."""
    return _shuffled(
        inspect.getdoc(part) or ""
        for name in sorted(set(sys.stdlib_module_names) - _TALKING)
        if not name.startswith("_") and (module := _imported(name)) is not None
        for owner in vars(module).values()
        if getattr(owner, "__module__", None) == name
        for part in (owner, *(method for _, method in inspect.getmembers(owner, inspect.isroutine)))
    )


def _imported(name: str) -> ModuleType | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        # Not every module of the library is there on every system.
        except ImportError:
            return None


def _shuffled(texts: Iterable[str]) -> list[str]:
    """Sentences of 6 to 24 plain words, each once."""
    plain: dict[str, None] = {}
    for text in texts:
        for part in text.replace("\n", " ").split(". "):
            words = part.split()
            letters = all(word.strip("(),;:'\"-").isalpha() for word in words)
            if 6 <= len(words) <= 24 and letters and part.strip()[0].isupper():
                plain[f"{' '.join(words)}."] = None
    return [list(plain)[index] for index in np.random.default_rng(0).permutation(len(plain))]
