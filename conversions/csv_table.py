"""A table: one row a layer. Only the columns `layer` and `weight_bits` are needed to read one."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from lampq.conversions import document
from lampq.conversions.entry import AnyLayer, Entry, Foreign, Widths
from lampq.conversions.target import Target
from lampq.core.values.errors import PlanError
from lampq.core.values.spreadsheet import quoted, unquoted

TITLE = "CSV"
WEIGHT_BITS = (1, 2, 3, 4, 5, 6, 7, 8)
ACTIVATION_BITS = (None, 2, 3, 4, 5, 6, 7, 8)
BLOCKS = True
_COLUMNS = ("layer", "kind", "shape", "weights", "weight_bits", "activation_bits")
_MOST_CHARACTERS = 1 << 22
_ALIASES = {"name": "layer", "bits": "weight_bits"}


def addresses(layer: AnyLayer, target: Target) -> tuple[str, ...]:
    """The layer's own name."""
    return (layer.name,)


def write(entries: Sequence[Entry], target: Target, unknown: Mapping[str, Any]) -> str:
    """One row a layer; an input that stays float leaves its cell empty."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(_COLUMNS)
    for entry in entries:
        shape = "x".join(map(str, entry.layer.shape))
        name, size = entry.addresses[0], entry.layer.size
        table.writerow(
            [quoted(name), entry.layer.kind, shape, size, entry.weight_bits, entry.activation_bits]
        )
    return out.getvalue()


def read(text: str, addresses: Sequence[str]) -> Foreign:
    """Widths by name; columns that say nothing here are kept, by name and layer."""
    known, widths = set(addresses), {}
    unknown: dict[str, dict[str, str]] = {}
    for number, row in enumerate(_rows(text), start=2):
        name = unquoted(row["layer"])
        if name in widths:
            raise PlanError(f"row {number}: layer {name} comes twice")
        widths[name] = _widths(row, f"row {number}, layer {name}")
        for column, value in row.items():
            if column not in _COLUMNS and value:
                unknown.setdefault(column, {})[name] = value
    return Foreign(
        widths={name: w for name, w in widths.items() if name in known},
        strangers=tuple(name for name in widths if name not in known),
        unknown=unknown,
    )


def _rows(text: str) -> list[dict[str, str]]:
    if len(text) > _MOST_CHARACTERS:
        raise PlanError(f"a table of more than {_MOST_CHARACTERS:,} characters")
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as err:
        raise PlanError(f"no table: {err}") from err
    head = [_ALIASES.get(cell.strip().lower(), cell.strip()) for cell in rows[0]] if rows else []
    if "layer" not in head or "weight_bits" not in head:
        raise PlanError("the first row of a table needs the columns layer and weight_bits")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(head):
            raise PlanError(f"row {number} has {len(row)} cells, the first row {len(head)}")
    return [dict(zip(head, (cell.strip() for cell in row), strict=True)) for row in rows[1:]]


def _widths(row: Mapping[str, str], where: str) -> Widths:
    weight, activation = row["weight_bits"], row.get("activation_bits", "")
    return _bits(weight, f"{where}: weight_bits"), _bits(
        activation, f"{where}: activation_bits"
    ) if activation else None


def _bits(cell: str, where: str) -> int:
    return document.bits(int(cell) if cell.isascii() and cell.isdigit() else cell, where)
