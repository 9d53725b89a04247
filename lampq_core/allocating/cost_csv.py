"""Tables of latencies or energies as CSV files.

Commas, semicolons or tabs. Columns, in any order:

- `layer` (a name, a pattern or a kind), or `kind`, or `shape` (`384x1536`), or kind and shape together;
- `weight_bits`, and where it matters `act_bits` (empty: any input width; 32: a float input);
- the value, with its unit in the name: `latency_ms`, `energy (mJ)`; or `value` and a column `unit`, or a line
  `# unit: ms`.

A line `# limit: 5 ms` states the most that a plan may take.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from fractions import Fraction
from pathlib import Path

from lampq.core.values.amounts import parse_number
from lampq.core.values.bounded import read_bytes
from lampq.core.values.cost_table import CostRow, CostTable
from lampq.core.values.errors import BudgetError
from lampq.core.values.layer import KINDS

# Unit -> (dimension, factor to the base unit of the dimension).
_UNITS = {
    "s": ("time", Fraction(1)), "ms": ("time", Fraction(1, 10**3)), "us": ("time", Fraction(1, 10**6)),
    "µs": ("time", Fraction(1, 10**6)), "ns": ("time", Fraction(1, 10**9)),
    "j": ("energy", Fraction(1)), "mj": ("energy", Fraction(1, 10**3)), "uj": ("energy", Fraction(1, 10**6)),
    "µj": ("energy", Fraction(1, 10**6)), "nj": ("energy", Fraction(1, 10**9)),
    "pj": ("energy", Fraction(1, 10**12)),
    "cycles": ("cycles", Fraction(1)), "kcycles": ("cycles", Fraction(10**3)),
    "mcycles": ("cycles", Fraction(10**6)),
}  # fmt: skip
_KNOWN = {
    "layer": "layer", "name": "layer", "kind": "kind", "shape": "shape", "unit": "unit",
    "weight_bits": "weight_bits", "w_bits": "weight_bits", "bits": "weight_bits",
    "act_bits": "input_bits", "activation_bits": "input_bits", "a_bits": "input_bits",
}  # fmt: skip
_MOST_BYTES, _MOST_LINES, _LONGEST_LINE = 1 << 24, 100_000, 2000


def read_cost_table(path: str | Path, *, name: str = "latency", limit: str | None = None) -> CostTable:
    """Read a table.

    Args:
        path: A CSV file.
        name: What it counts, `latency` or `energy`.
        limit: The most that a plan may take, `5ms`, or `5` in the table's unit; None takes the table's own.

    Raises:
        BudgetError: The file cannot be read, names no unit or no limit, or has a line that says nothing.
    """
    path = Path(path)
    where = f"{name} table {path}"
    comments, header, lines = _read_lines(path, where)
    columns, value_column, unit = _columns(header, where)
    unit = unit or comments.get("unit", "")
    rows = []
    for number, line in lines:
        row = _row(columns, value_column, line, f"{where}, line {number}")
        row_unit = line[columns["unit"]].strip() if "unit" in columns else unit
        unit = unit or row_unit
        factor = _factor(row_unit, unit, f"{where}, line {number}")
        rows.append(dataclasses.replace(row, value=row.value * factor))
    if unit.lower() not in _UNITS:
        raise BudgetError(
            f"{where}: {f'{unit!r} is no unit' if unit else 'no unit'}; name the value column like {name}_ms, "
            f"or add a line '# unit: ms' (known: {', '.join(_UNITS)})"
        )
    text = comments.get("limit") if limit is None else limit
    if text is None:
        raise BudgetError(f"{where}: no limit; give --max-{name}, or add a line '# limit: 5 {unit}'")
    return CostTable(name=name, unit=unit, limit=_limit(text, unit, name), rows=tuple(rows), source=path.name)


def _read_lines(path: Path, where: str) -> tuple[dict[str, str], list[str], list[tuple[int, list[str]]]]:
    """Remarks (`# key: value`), the header, and the numbered lines of a file."""
    try:
        text = read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError as err:
        raise BudgetError(f"{where}: no such file") from err
    except (OSError, UnicodeDecodeError) as err:
        why = getattr(err, "strerror", None) or err.__class__.__name__
        raise BudgetError(f"{where}: cannot be read as text ({why})") from err
    comments: dict[str, str] = {}
    rows: list[tuple[int, str]] = []
    lines = text.splitlines()
    if len(lines) > _MOST_LINES:
        raise BudgetError(f"{where}: more than {_MOST_LINES:,} lines")
    for number, line in enumerate(lines, start=1):
        if len(line) > _LONGEST_LINE:
            raise BudgetError(f"{where}, line {number}: longer than {_LONGEST_LINE} characters")
        if line.lstrip().startswith("#"):
            key, _, value = line.lstrip().lstrip("#").partition(":")
            comments[key.strip().lower()] = value.strip()
        elif line.strip():
            rows.append((number, line))
    if len(rows) < 2:
        raise BudgetError(f"{where}: expected a header and at least one line of values")
    separator = next((mark for mark in "\t;" if mark in rows[0][1]), ",")
    cells = [(number, _cells(line, separator, where)) for number, line in rows]
    return comments, cells[0][1], cells[1:]


def _cells(line: str, separator: str, where: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator))
    except (csv.Error, StopIteration) as err:
        raise BudgetError(f"{where}: no CSV ({err})") from err


def _columns(header: list[str], where: str) -> tuple[dict[str, int], int, str]:
    """Known columns, the column of values, and the unit its name states (or empty)."""
    columns: dict[str, int] = {}
    values: list[tuple[int, str]] = []
    for index, title in enumerate(header):
        name = title.strip().lower()
        known = _KNOWN.get(name.replace(" ", "_"))
        if known:
            if known in columns:
                raise BudgetError(f"{where}: two columns say {known}")
            columns[known] = index
            continue
        unit = re.fullmatch(r"(?:.*[\s_(\[])?([^\s_(\[\])]+)[)\]]?", name)
        if unit and unit[1] in _UNITS:
            values.append((index, unit[1]))
        elif name in ("value", "latency", "energy", "time"):
            values.append((index, ""))
    if not {"layer", "kind", "shape"} & set(columns) or "weight_bits" not in columns:
        raise BudgetError(
            f"{where}: needs a column weight_bits, and layer, kind or shape; has {', '.join(header)}"
        )
    if len(values) != 1:
        raise BudgetError(
            f"{where}: expected one column of values with its unit in the name, like latency_ms or energy_mJ; "
            f"has {', '.join(header)}"
        )
    return columns, *values[0]


def _row(columns: dict[str, int], value_column: int, line: list[str], where: str) -> CostRow:
    if len(line) <= max(*columns.values(), value_column):
        raise BudgetError(f"{where}: fewer cells than the header has")

    def cell(name: str) -> str:
        return line[columns[name]].strip() if name in columns else ""

    kind = cell("kind")
    if kind and kind not in KINDS:
        raise BudgetError(f"{where}: kind {kind!r} is none of {', '.join(KINDS)}")
    if not (cell("layer") or kind or cell("shape")):
        raise BudgetError(f"{where}: names no layer, kind or shape")
    shape = re.findall(r"\d{1,12}", cell("shape"))
    if cell("shape") and not shape:
        raise BudgetError(f"{where}: shape {cell('shape')!r}: write it like 384x1536")
    weight_bits, input_bits = cell("weight_bits").lower(), cell("input_bits").lower()
    if not re.fullmatch(r"[1-8]", weight_bits):
        raise BudgetError(f"{where}: weight_bits {weight_bits!r}: write 1 to 8")
    if not re.fullmatch(r"[2-8]?|16|32|float", input_bits):
        raise BudgetError(
            f"{where}: act_bits {input_bits!r}: write 2 to 8, 16, 32 for float, or nothing for any"
        )
    return CostRow(
        layer=cell("layer"),
        kind=kind,
        shape=tuple(int(side) for side in shape),
        weight_bits=int(weight_bits),
        input_bits=int(input_bits.replace("float", "32")) if input_bits else None,
        value=parse_number(line[value_column], f"{where}: value"),
    )


def _factor(unit: str, target: str, where: str) -> Fraction:
    """What turns a value in one unit into another; 1 where no unit is known yet."""
    if unit == target:
        return Fraction(1)
    mine, theirs = _UNITS.get(unit.lower()), _UNITS.get(target.lower())
    if mine is None or theirs is None or mine[0] != theirs[0]:
        raise BudgetError(f"{where}: {unit or 'no unit'!r} and {target!r} are no units of one kind")
    return mine[1] / theirs[1]


def _limit(text: str, unit: str, name: str) -> Fraction:
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?\d+)?)\s*(\S*)\s*", text)
    if match is None:
        raise BudgetError(f"largest {name} {text!r}: write a number with its unit, for example 5{unit}")
    value = parse_number(match[1], f"largest {name}")
    return value * _factor(match[2] or unit, unit, f"largest {name} {text!r}")
