"""TFLite's FlatBuffers: checked decoding into records, and encoding of records into pieces of a file.

Nothing in the file is believed: every offset, length and count is checked before it is followed, and the
number of tables is bounded, so that a damaged or hostile file ends in an error, never in a crash, a loop or a
full memory. Vectors of numbers are not copied: they are views of the file.

Format: https://flatbuffers.dev/internals. A table starts with the distance back to its vtable, which lists
where in the table each field lies; strings, vectors and tables are referred to by their distance ahead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from lampq.adapters.tflite.schema import SCALAR_BYTES, VECTOR_DTYPES, Field, schema
from lampq.core.values.errors import AdapterError

IDENTIFIER = b"TFL3"
# A large language model has some 200,000 tables; a vector of garbage can claim a billion.
_TABLE_LIMIT = 400_000
# Runtimes multiply straight from the file and want their data aligned.
ALIGNMENT = 16
# Vectors that lie behind all tables, one slot of `blob_bytes` each, so that the size of a file is a plain
# sum.
_BLOBS = {("Buffer", "data"), ("QuantizationParameters", "scale"), ("QuantizationParameters", "zero_point")}

_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")
_SCALARS = {code: struct.Struct(f"<{code}") for code in SCALAR_BYTES}


class Record:
    """A table in memory: its name and its fields as attributes.

    Absent scalars read as their default, everything else absent as None. Vectors are NumPy arrays of numbers
    or lists of records; strings are bytes.

    Args:
        table: Name of the table in the schema.
        **values: Fields to set.
    """

    __slots__ = ("table", "values")
    table: str
    values: dict[str, Any]

    def __init__(self, table: str, **values: Any) -> None:
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "values", values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            pass
        for field in schema().tables[self.table]:
            if field.name == name:
                return field.default
        raise AttributeError(f"table {self.table} has no field {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        self.values[name] = value

    def __repr__(self) -> str:
        return f"Record({self.table}, {', '.join(self.values)})"

    def copy(self, **changes: Any) -> Record:
        """A record with the same fields but for `changes`; what the fields refer to is shared."""
        return Record(self.table, **{**self.values, **changes})


def decode(data: Any, root: str = "Model") -> Record:
    """The records of a file.

    Args:
        data: The whole file, anything with a buffer (bytes, mmap).
        root: Its first table.

    Raises:
        AdapterError: An offset, length or count points outside the file, or the file is newer than the
            schema.
    """
    return _Decoder(data).root(root)


def encode(model: Record, *, reserve: int = 0) -> list[Any]:
    """A file as pieces in order: its tables, then its data.

    Args:
        model: The first record.
        reserve: The tables are padded to at least this many bytes.

    Returns:
        Objects with a buffer; large arrays are passed on, not copied.

    Raises:
        AdapterError: The file would exceed 2 GiB, where its offsets end.
    """
    return _Encoder(reserve).encode(model)


def padded_table_bytes(count: int) -> int:
    """Bytes that tables of `count` bytes take when padded for the data behind them."""
    return count + -(count + 4) % ALIGNMENT


def blob_bytes(count: int) -> int:
    """Bytes that a vector of `count` bytes behind the tables takes, its length and padding included.

    >>> blob_bytes(12), blob_bytes(13)
    (16, 32)
    """
    return -(-(4 + count) // ALIGNMENT) * ALIGNMENT


class _Decoder:
    def __init__(self, data: Any) -> None:
        self.view = memoryview(data)
        self.size = len(self.view)
        self.tables = 0
        self.text_bytes = 0

    def root(self, table: str) -> Record:
        if self.size < 8:
            raise AdapterError(f"only {self.size} bytes; a model is longer")
        return self.record(self.follow(0, table), table, 0)

    def follow(self, at: int, what: str) -> int:
        """The place an offset stored at `at` refers to."""
        target: int = at + _U32.unpack_from(self.view, at)[0]
        if target == at or target > self.size - 4:
            raise AdapterError(f"{what} lies at byte {target} of {self.size}; the file is damaged or cut off")
        return target

    def record(self, at: int, table: str, depth: int) -> Record:
        self.tables += 1
        if self.tables > _TABLE_LIMIT or depth > 16:
            raise AdapterError(
                f"more than {_TABLE_LIMIT:,} tables, or tables nested too deep; the file is damaged"
            )
        fields = schema().tables[table]
        record = Record(table)
        for field, place in self.places(at, table, fields):
            name = f"{table}.{field.name}"
            if field.kind == "scalar":
                record.values[field.name] = _SCALARS[field.element].unpack_from(self.view, place)[0]
            elif field.kind == "string":
                record.values[field.name] = self.text(self.follow(place, name), name)
            elif field.kind == "table":
                record.values[field.name] = self.record(self.follow(place, name), field.element, depth + 1)
            elif field.kind == "union":
                kind = self.union_member(record, field)
                if kind is not None:
                    record.values[field.name] = self.record(self.follow(place, name), kind, depth + 1)
            else:
                record.values[field.name] = self.vector(self.follow(place, name), field.element, name, depth)
        return record

    def places(self, at: int, table: str, fields: tuple[Field, ...]) -> Iterator[tuple[Field, int]]:
        """The fields that are present, and where they lie."""
        start = at - _I32.unpack_from(self.view, at)[0]
        if not 0 <= start <= self.size - 4:
            raise AdapterError(
                f"the vtable of a {table} lies at byte {start} of {self.size}; the file is damaged"
            )
        length, inline = _U16.unpack_from(self.view, start)[0], _U16.unpack_from(self.view, start + 2)[0]
        if length < 4 or length % 2 or start + length > self.size or inline < 4 or at + inline > self.size:
            raise AdapterError(f"a {table} at byte {at} reaches beyond the file, or its vtable is malformed")
        offsets = struct.unpack_from(f"<{(length - 4) // 2}H", self.view, start + 4)
        if any(offsets[len(fields) :]):
            raise AdapterError(f"a {table} has fields unknown here; the file is damaged or of a newer schema")
        for field, offset in zip(fields, offsets, strict=False):
            if offset == 0 or field.kind == "unused":
                continue
            if offset < 4 or offset + field.inline_bytes > inline:
                raise AdapterError(f"{table}.{field.name} lies outside its table; the file is damaged")
            yield field, at + offset

    def union_member(self, record: Record, field: Field) -> str | None:
        number = getattr(record, f"{field.name}_type")
        if number == 0:
            return None
        member = schema().enums[field.element].get(number)
        if member is None:
            raise AdapterError(
                f"{field.element} {number} is unknown here; the file is damaged or of a newer schema"
            )
        return member

    def counted(self, at: int, size: int, name: str) -> int:
        count: int = _U32.unpack_from(self.view, at)[0]
        if count * size > self.size - at - 4:
            raise AdapterError(f"{name} has {count} entries at byte {at}, beyond the end of the file")
        return count

    def text(self, at: int, name: str) -> bytes:
        count = self.counted(at, 1, name)
        self.text_bytes += count
        if self.text_bytes > max(self.size, 1 << 16):
            raise AdapterError(f"{name}: more text than the file has bytes; the file is damaged")
        return bytes(self.view[at + 4 : at + 4 + count])

    def vector(self, at: int, element: str, name: str, depth: int) -> Any:
        if element in VECTOR_DTYPES:
            dtype = VECTOR_DTYPES[element]
            return np.frombuffer(self.view, dtype, self.counted(at, dtype.itemsize, name), at + 4)
        count = self.counted(at, 4, name)
        starts = range(at + 4, at + 4 + 4 * count, 4)
        if element == "s":
            return [self.text(self.follow(start, name), name) for start in starts]
        return [self.record(self.follow(start, name), element, depth + 1) for start in starts]


class _Encoder:
    """Lays tables out front to back, every child behind its parent, and the data behind them all."""

    def __init__(self, reserve: int) -> None:
        self.reserve = reserve
        self.out = bytearray()
        self.vtables: dict[bytes, int] = {}
        self.blobs: list[np.ndarray] = []
        # Arrays used more than once are stored once, known by where they lie in memory; and for each use, the
        # place of its offset and the number of the blob.
        self.numbers: dict[tuple[int, int], int] = {}
        self.references: list[tuple[int, int]] = []

    def encode(self, model: Record) -> list[Any]:
        self.out += b"\0\0\0\0" + IDENTIFIER
        self.refer(0, self.table(model))
        # The first length of a blob then lies 4 bytes before a multiple of the alignment.
        self.out += bytes(max(0, self.reserve - len(self.out)))
        self.out += bytes(padded_table_bytes(len(self.out)) - len(self.out))
        pieces: list[Any] = [self.out]
        places, end = [], len(self.out)
        for blob in self.blobs:
            places.append(end)
            pieces += [_U32.pack(blob.size), blob.data, bytes(blob_bytes(blob.nbytes) - 4 - blob.nbytes)]
            end += blob_bytes(blob.nbytes)
        if end >= 1 << 31:
            raise AdapterError(f"the model would take {end:,} bytes; a .tflite file ends at 2 GiB")
        for at, number in self.references:
            self.refer(at, places[number])
        return pieces

    def refer(self, at: int, target: int) -> None:
        _U32.pack_into(self.out, at, target - at)

    def align(self, size: int) -> None:
        self.out += bytes(-len(self.out) % size)

    def table(self, record: Record) -> int:
        present = [field for field in schema().tables[record.table] if self.is_present(record, field)]
        # Largest first: then every field is aligned without gaps.
        order = sorted(present, key=lambda field: -field.inline_bytes)
        slots, inline = [0] * (max((field.slot for field in present), default=-1) + 1), 4
        for field in order:
            inline += -inline % field.inline_bytes
            slots[field.slot] = inline
            inline += field.inline_bytes
        vtable = struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), inline, *slots)
        if vtable not in self.vtables:
            self.align(2)
            self.vtables[vtable] = len(self.out)
            self.out += vtable
        self.align(8 if any(field.inline_bytes == 8 for field in present) else 4)
        at = len(self.out)
        self.out += bytes(inline)
        _I32.pack_into(self.out, at, at - self.vtables[vtable])
        for field in present:
            self.field(record, field, at + slots[field.slot])
        return at

    @staticmethod
    def is_present(record: Record, field: Field) -> bool:
        value = record.values.get(field.name)
        return value is not None and not (field.kind == "scalar" and value == field.default)

    def field(self, record: Record, field: Field, at: int) -> None:
        value = record.values[field.name]
        if field.kind == "scalar":
            _SCALARS[field.element].pack_into(self.out, at, value)
        elif field.kind == "string":
            self.refer(at, self.text(value))
        elif field.kind in ("table", "union"):
            self.refer(at, self.table(value))
        elif field.element in VECTOR_DTYPES:
            array = np.ascontiguousarray(value, dtype=VECTOR_DTYPES[field.element])
            if (record.table, field.name) in _BLOBS:
                self.blob(at, value if array is value else array)
            else:
                self.refer(at, self.numbers_inline(array))
        else:
            self.align(4)
            start = len(self.out)
            self.refer(at, start)
            self.out += _U32.pack(len(value)) + bytes(4 * len(value))
            for index, item in enumerate(value):
                target = self.text(item) if field.element == "s" else self.table(item)
                self.refer(start + 4 + 4 * index, target)

    def text(self, value: bytes) -> int:
        self.align(4)
        at = len(self.out)
        self.out += _U32.pack(len(value)) + value + b"\0"
        return at

    def numbers_inline(self, array: np.ndarray) -> int:
        self.out += bytes(-(len(self.out) + 4) % max(4, array.itemsize))
        at = len(self.out)
        self.out += _U32.pack(array.size) + array.tobytes()
        return at

    def blob(self, at: int, array: np.ndarray) -> None:
        lies = (array.__array_interface__["data"][0], array.nbytes)
        number = self.numbers.setdefault(lies, len(self.blobs))
        if number == len(self.blobs):
            self.blobs.append(array)
        self.references.append((at, number))
