"""The schema of TFLite files, as data: which tables there are, and where each of their fields lies.

`schema.txt` holds one line per table, `name field:type=default ...` in the order of the fields' slots, then
one line per enumeration, `name value:member ...`. Types are NumPy's letters for scalars, `s` for strings, a
table's name, `[type]` for vectors, and `<enumeration>` for a union whose member tables the enumeration lists;
the field before a union says which. A `-` is a slot no longer in use. The facts are those of TensorFlow
Lite's schema.fbs, version 3.

The classes that ai-edge-litert generates from that file check no bounds, so a damaged file makes them loop
or read what is not there, and tflite-runtime comes without them. Hence a table of our own (a test compares
the two).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

SCALAR_BYTES = {"?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "f": 4, "d": 8}
# Booleans in vectors are read as bytes: a damaged file may hold others than 0 and 1.
VECTOR_DTYPES = {
    code: np.dtype(f"<{np.dtype('u1' if code == '?' else code).kind}{size}")
    for code, size in SCALAR_BYTES.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a table.

    Attributes:
        name: Its name, or `-` for a slot no longer in use.
        slot: Its place in the table's vtable.
        kind: `scalar`, `string`, `table`, `union`, or `vector`.
        element: A scalar's letter, `s`, or the name of a table or of a union's enumeration; of a vector, that
            of its elements.
        default: Value of an absent scalar.
    """

    name: str
    slot: int
    kind: str
    element: str
    default: bool | int | float | None

    @property
    def inline_bytes(self) -> int:
        """Bytes it takes in its table: the scalar, or the offset to what it refers to."""
        return SCALAR_BYTES[self.element] if self.kind == "scalar" else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """All tables and enumerations.

    Attributes:
        tables: Table name to its fields by slot.
        enums: Enumeration name to its members by value.
    """

    tables: dict[str, tuple[Field, ...]]
    enums: dict[str, dict[int, str]]

    def value(self, enum: str, member: str) -> int:
        """The number of an enumeration's member.

        >>> schema().value("BuiltinOperator", "FULLY_CONNECTED")
        9
        """
        return next(value for value, name in self.enums[enum].items() if name == member)


@cache
def schema() -> Schema:
    """The schema, parsed once."""
    text = resources.files(__package__).joinpath("schema.txt").read_text(encoding="utf-8")
    tables: dict[str, tuple[Field, ...]] = {}
    enums: dict[str, dict[int, str]] = {}
    for line in text.splitlines():
        name, *words = line.split()
        if words and words[0].partition(":")[0].isdigit():
            pairs = (word.split(":") for word in words)
            enums[name] = {int(value): member for value, member in pairs}
        else:
            tables[name] = tuple(_field(slot, word) for slot, word in enumerate(words))
    return Schema(tables=tables, enums=enums)


def _field(slot: int, word: str) -> Field:
    name, _, kind = word.partition(":")
    kind, _, default = kind.partition("=")
    if name == "-":
        return Field(name=name, slot=slot, kind="unused", element="", default=None)
    if kind.startswith("["):
        return Field(name=name, slot=slot, kind="vector", element=kind[1:-1], default=None)
    if kind.startswith("<"):
        return Field(name=name, slot=slot, kind="union", element=kind[1:-1], default=None)
    if kind in SCALAR_BYTES:
        value = float(default or 0) if kind in "fd" else int(default or 0)
        return Field(
            name=name, slot=slot, kind="scalar", element=kind, default=bool(value) if kind == "?" else value
        )
    return Field(name=name, slot=slot, kind="string" if kind == "s" else "table", element=kind, default=None)
