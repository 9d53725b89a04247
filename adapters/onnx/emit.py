"""Adding nodes and initializers to a graph under short names that nothing else uses."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx.ledger import Ledger

# Names of one length, so that the bytes of a layer do not depend on how many names the layers before it took.
_NAME_LENGTH = 3


class Emitter:
    """Writes new nodes into a model.

    Nodes that depend on initializers alone go into a prologue, which `finish` puts in front of the graph; the
    others are inserted before the node that uses them. New values carry no type or shape: runtimes infer
    both, and in a small model the records would be a noticeable part of the file.

    Args:
        model: The model to add to; only its main graph is changed.

    Attributes:
        model: The same.
        graph: Its main graph.
        opset: Version of the default operator set.
        ledger: For which layer everything was made.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self.opset = int(model.opset_imports[""])
        self._prologue: list[ir.Node] = []
        self.ledger = Ledger()
        self._shared: dict[Hashable, ir.Value] = {}
        self._taken = _names(model)
        self._fresh = _short_names()

    def initializer(self, array: np.ndarray, name: str | None = None) -> ir.Value:
        """A new initializer called `name`, or `name` and a number where that is taken."""
        name = self._short() if name is None else self._free(name)
        return self._register(ir.Tensor(np.asarray(array, order="C"), name=name), name)

    def lazy(
        self, make: Callable[[], np.ndarray], dtype: ir.DataType, shape: Sequence[int], name: str
    ) -> ir.Value:
        """A new initializer whose array is made when it is looked at, and not kept."""
        name = self._free(name)
        tensor = ir.LazyTensor(lambda: ir.Tensor(make(), name=name), dtype, ir.Shape(shape), name=name)
        return self._register(tensor, name)

    def constant(self, array: np.ndarray | np.generic) -> ir.Value:
        """A small initializer, one for all requests of the same content."""
        array = np.asarray(array)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        return self.share(key, lambda: self.initializer(array))

    def share(self, key: Hashable, make: Callable[[], ir.Value]) -> ir.Value:
        """What `make` gives, made once for all that ask for it by the same key.

        Args:
            key: Says all that it depends on, in values: the same in every graph that is made of a model.
            make: Makes it.
        """
        self.ledger.current.shared.add(key)
        if key not in self._shared:
            with self.ledger.owned_by(key):
                self._shared[key] = make()
        return self._shared[key]

    def fold(self, op_type: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        """A node of the prologue, which runtimes evaluate once at load; its only output."""
        node = self._node(op_type, inputs, attributes)
        self._prologue.append(node)
        return node.outputs[0]

    def before(
        self, user: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any
    ) -> ir.Value:
        """A node in front of `user`; its only output."""
        node = self._node(op_type, inputs, attributes)
        self.graph.insert_before(user, node)
        return node.outputs[0]

    def after(self, value: ir.Value, op_type: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        """A node right where `value` becomes known, so that all later ones can use it; its only output."""
        producer = value.producer()
        if producer is None:
            return self.before(self.graph[0], op_type, inputs, **attributes)
        node = self._node(op_type, inputs, attributes)
        self.graph.insert_after(producer, node)
        return node.outputs[0]

    def take_over(
        self, old: ir.Node, op_type: str, inputs: Sequence[ir.Value], **attributes: Any
    ) -> ir.Value:
        """A node in place of `old`, under its name and with its output's name; its only output."""
        node = ir.node(op_type, inputs, attributes, name=old.name, doc_string=old.doc_string)
        node.metadata_props.update(old.metadata_props)
        self.ledger.current.nodes.append(node)
        read = [value for value in old.inputs if value is not None]
        ir.convenience.replace_nodes_and_values(self.graph, old, [old], [node], old.outputs, node.outputs)
        self.prune(read)
        return node.outputs[0]

    def prune(self, values: Iterable[ir.Value]) -> None:
        """Remove what nothing reads any more: initializers, and nodes with what only they read."""
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if value.uses() or value.is_graph_output():
                continue
            node = value.producer()
            if node is None:
                name = value.name or ""
                if self.graph.initializers.get(name) is value and not value.is_graph_input():
                    del self.graph.initializers[name]
            elif node.graph is self.graph and not any(v.uses() or v.is_graph_output() for v in node.outputs):
                waiting += [v for v in node.inputs if v is not None]
                self.graph.remove(node, safe=True)

    def finish(self) -> None:
        """Put the prologue in front of the graph. Call once, at the end."""
        if self._prologue:
            self.graph.insert_before(self.graph[0], self._prologue)
            self._prologue = []

    def _node(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any]) -> ir.Node:
        node = ir.node(op_type, inputs, attributes, name="")
        node.outputs[0].name = self._short()
        self.ledger.current.nodes.append(node)
        return node

    def _register(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        value = ir.Value(name=name, const_value=tensor)
        self.graph.register_initializer(value)
        self.ledger.current.initializers.append(value)
        return value

    def _short(self) -> str:
        name = next(name for name in self._fresh if name not in self._taken)
        self._taken.add(name)
        return name

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{name}.{number}"
        self._taken.add(free)
        return free


def _short_names() -> Iterator[str]:
    """aaa, aab, ...: a letter, then letters and digits."""
    characters = string.ascii_letters + string.digits
    for rest in itertools.count(_NAME_LENGTH - 1):
        for letters in itertools.product(string.ascii_letters, *[characters] * rest):
            yield "".join(letters)


def _names(model: ir.Model) -> set[str]:
    """Names of all values, those of subgraphs included: an inner name must not hide a new outer one."""
    names: set[str] = set()
    for graph in model.graphs():
        names.update(value.name or "" for value in graph.inputs)
        names.update(graph.initializers)
        for node in graph:
            names.update(value.name or "" for value in node.outputs)
    return names
