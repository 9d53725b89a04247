"""Adding nodes and initializers to a graph under short names that nothing else uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


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
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self.opset = int(model.opset_imports[""])
        self._prologue: list[ir.Node] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._taken = _names(model)
        self._count = 0

    def initializer(self, array: np.ndarray, name: str | None = None) -> ir.Value:
        """A new initializer called `name`, or `name` and a number where that is taken."""
        name = self._short() if name is None else self._free(name)
        value = ir.Value(name=name, const_value=ir.Tensor(np.asarray(array, order="C"), name=name))
        self.graph.register_initializer(value)
        return value

    def lazy(
        self, make: Callable[[], np.ndarray], dtype: ir.DataType, shape: Sequence[int], name: str
    ) -> ir.Value:
        """A new initializer whose array is made when it is looked at, and not kept."""
        name = self._free(name)
        tensor = ir.LazyTensor(lambda: ir.Tensor(make(), name=name), dtype, ir.Shape(shape), name=name)
        value = ir.Value(name=name, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def constant(self, array: np.ndarray | np.generic) -> ir.Value:
        """A small initializer, one for all requests of the same content."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer(array)
        return self._constants[key]

    def fold(self, op_type: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        """A node of the prologue, which runtimes evaluate once at load; its only output."""
        node = self._node(op_type, inputs, attributes)
        self._prologue.append(node)
        return node.outputs[0]

    def before(self, user: ir.Node, op_type: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
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

    def _node(self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, Any]) -> ir.Node:
        node = ir.node(op_type, inputs, attributes, name="")
        node.outputs[0].name = self._short()
        return node

    def _short(self) -> str:
        while (name := f"q{self._count}") in self._taken:
            self._count += 1
        self._taken.add(name)
        return name

    def _free(self, name: str) -> str:
        found, number = name, 1
        while found in self._taken:
            number += 1
            found = f"{name}.{number}"
        self._taken.add(found)
        return found


def _names(model: ir.Model) -> set[str]:
    """Names of all values, those of subgraphs included: an inner name must not hide a new outer one."""
    taken: set[str] = set()
    for graph in model.graphs():
        taken.update(value.name or "" for value in graph.inputs)
        taken.update(graph.initializers)
        for node in graph:
            taken.update(value.name or "" for value in node.outputs)
    return taken
