"""Plans as configurations of other tools, and back: one file per tool, found by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from lampq.core.values.errors import PlanError

if TYPE_CHECKING:
    from lampq.conversions.entry import Format

FORMATS = {
    "json": "plain",
    "csv": "csv_table",
    "ort-nbits": "ort_nbits",
    "ort-qdq": "ort_qdq",
    "ai-edge": "ai_edge",
    "torchao": "torchao",
    "compressed-tensors": "compressed_tensors",
    "quanto": "quanto",
    "modelopt": "modelopt",
    "aimet": "aimet",
    "nncf": "nncf",
}
"""Name on the command line -> module."""


def find(name: str) -> Format:
    """The format of a name.

    Raises:
        PlanError: There is none; lists those there are.
    """
    if name not in FORMATS:
        raise PlanError(f"no tool is called {name!r}; choose {', '.join(FORMATS)}")
    return cast("Format", importlib.import_module(f"lampq.conversions.{FORMATS[name]}"))
