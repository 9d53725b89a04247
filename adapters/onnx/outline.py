"""The outline of an ONNX file: the same model, with every large tensor replaced by its place in the file.

An ONNX file is one protocol buffer that a parser copies whole, weights included, once as bytes and once as
objects. The outline is made by walking the wire format instead and is a few hundred kilobytes whatever the
size of the weights, which are then read from the file one at a time.

Wire format: https://protobuf.dev/programming-guides/encoding; field numbers: onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

from lampq.core.values.errors import AdapterError

# A tensor below this many bytes stays in the outline: shape arithmetic and biases are wanted at once.
LARGE_BYTES = 1024

# message -> field -> message of that field, on the paths that lead to tensors.
_CHILDREN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_DEPTH_LIMIT = 64
_MOST_BYTES = 1 << 27
# Of one message. Whoever has more has it from a machine that had no model in mind.
_MOST_FIELDS = 200_000
_DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 2, 4, 9, 13, 14
_FLOAT, _EXTERNAL = 1, 1


def outline(data: memoryview, name: str) -> bytes:
    """The model without its large tensors.

    Args:
        data: The whole file.
        name: The file's own name; tensors of the outline refer to it as external data.

    Returns:
        A serialized ModelProto in which each tensor of `LARGE_BYTES` or more is external data in `name`.

    Raises:
        AdapterError: The bytes are no protocol buffer, or end in the middle of a field.
    """
    content = bytes(_rewrite(data, 0, len(data), "model", name.encode(), 0))
    if len(content) > _MOST_BYTES:
        raise AdapterError(
            f"{len(content) >> 20} MiB beside its tensors; at most {_MOST_BYTES >> 20} MiB are read"
        )
    return content


def _rewrite(data: memoryview, start: int, end: int, message: str, name: bytes, depth: int) -> bytearray:
    if depth > _DEPTH_LIMIT:
        raise AdapterError(f"graphs nested more than {_DEPTH_LIMIT} deep; this is no usable model")
    if message == "tensor":
        return _rewrite_tensor(data, start, end, name)
    children = _CHILDREN[message]
    out = bytearray()
    for number, wire, head, body, stop in _fields(data, start, end):
        child = children.get(number) if wire == 2 else None
        if child is None or stop - body < LARGE_BYTES:
            out += data[head:stop]
        else:
            inner = _rewrite(data, body, stop, child, name, depth + 1)
            out += varint(number << 3 | 2) + varint(len(inner)) + inner
    return out


def _rewrite_tensor(data: memoryview, start: int, end: int, name: bytes) -> bytearray:
    fields = list(_fields(data, start, end))
    kinds = [
        _read_varint(data, body, stop)[0]
        for number, wire, _, body, stop in fields
        if (number, wire) == (_DATA_TYPE, 0)
    ]
    # Packed float_data has the bytes of raw_data; the other typed fields are varints and rare in weights.
    holders = {_RAW_DATA, _FLOAT_DATA} if kinds == [_FLOAT] else {_RAW_DATA}
    contents = [f for f in fields if f[0] in holders and f[1] == 2]
    if (
        len(contents) != 1
        or contents[0][4] - contents[0][3] < LARGE_BYTES
        or any(f[0] == _DATA_LOCATION for f in fields)
    ):
        return bytearray(data[start:end])
    out = bytearray()
    for field in fields:
        if field is not contents[0]:
            out += data[field[2] : field[4]]
    _, _, _, body, stop = contents[0]
    for key, value in ((b"location", name), (b"offset", b"%d" % body), (b"length", b"%d" % (stop - body))):
        entry = b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(value)) + value
        out += varint(_EXTERNAL_DATA << 3 | 2) + varint(len(entry)) + entry
    return out + varint(_DATA_LOCATION << 3) + varint(_EXTERNAL)


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Fields of a message: number, wire type, start of the tag, start and end of the value."""
    at, count = start, 0
    while at < end:
        head = at
        count += 1
        if count > _MOST_FIELDS:
            raise AdapterError(f"more than {_MOST_FIELDS:,} parts in one; this is no usable model")
        tag, at = _read_varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            size, body = _read_varint(data, at, end)
            at = body + size
        elif wire == 0:
            body = at
            _, at = _read_varint(data, at, end)
        elif wire in (1, 5):
            body = at
            at += 8 if wire == 1 else 4
        else:
            raise AdapterError(f"byte {head} is no ONNX (field {number} has wire type {wire})")
        if number == 0:
            raise AdapterError(f"byte {head} is no ONNX (field number 0)")
        if at > end:
            raise AdapterError(
                f"the file ends too early: the field at byte {head} needs {at - end} bytes more"
            )
        yield number, wire, head, body, at


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise AdapterError(f"the number at byte {at} does not end; the file is damaged or cut off")


def varint(value: int) -> bytes:
    """A number, >= 0, as the wire format has it: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
