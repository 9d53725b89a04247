"""How large a model is with all its functions put in, counted before they are.

A function may call another twice, that one a third twice, and so on: three kilobytes of file stand for billions of
nodes. The same count finds functions that call themselves, and graphs that no library reads in reasonable time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import onnx

from lampq.core.values.errors import AdapterError

# Functions may make so many nodes, or so many times those that the file spells out: some 20,000 nodes make up a large
# language model, and its blocks are one function at best.
_FREE_NODES, _MOST_TIMES = 50_000, 8
_MOST_BYTES = 1 << 27
_MOST_DEPTH = 32


class _Key(NamedTuple):
    """What a node calls a function by."""

    domain: str
    name: str
    overload: str


class _Size(NamedTuple):
    """Of a graph with all functions put in."""

    nodes: int
    bytes: int


def check(model: onnx.ModelProto) -> None:
    """Hold the size of a model, its functions put in, against what is read.

    Raises:
        AdapterError: There are too many nodes or bytes, or a function calls itself.
    """
    functions = {_Key(f.domain, f.name, _overload(f)): f for f in model.functions}
    inner = [node for function in functions.values() for node in function.node]
    spelt_out = sum(1 for nodes in (model.graph.node, inner) for _ in _with_bodies(nodes))
    most = max(_FREE_NODES, _MOST_TIMES * spelt_out)
    known: dict[_Key, _Size] = {}
    # Functions are put into functions that nothing calls, too.
    for nodes in (model.graph.node, inner):
        size = _total(nodes, functions, known, ())
        if size.nodes > most or size.bytes > _MOST_BYTES:
            raise AdapterError(
                f"{size.nodes:,} nodes, its functions put in; at most {most:,} of {_MOST_BYTES >> 20} MiB are read"
            )


def _total(
    nodes: Iterable[onnx.NodeProto],
    functions: dict[_Key, onnx.FunctionProto],
    known: dict[_Key, _Size],
    callers: tuple[_Key, ...],
) -> _Size:
    count = weight = 0
    for node in _with_bodies(nodes):
        key = _Key(node.domain, node.op_type, _overload(node))
        if key in functions and key not in known:
            if key in callers or len(callers) >= _MOST_DEPTH:
                raise AdapterError(
                    f"function {key.name!r} calls itself, or lies more than {_MOST_DEPTH} functions deep"
                )
            inner = _total(functions[key].node, functions, known, (*callers, key))
            known[key] = _Size(inner.nodes, inner.bytes + functions[key].ByteSize())
        size = known.get(key, _Size(1, 0))
        count, weight = count + size.nodes, weight + size.bytes
    return _Size(count, weight)


def _with_bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of the graphs that are attributes of them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _with_bodies(body.node)


def _overload(proto: onnx.NodeProto | onnx.FunctionProto) -> str:
    # Older versions of onnx have no overloads.
    return getattr(proto, "overload", "")
