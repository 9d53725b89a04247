"""Arrays that write what is computed with them into a graph, in standard operators.

A quantizer of activations has one body for NumPy and PyTorch (`core.values.activation_rule`). With these arrays in
place of theirs the same body becomes nodes, whichever quantizer it is of, those of other packages included.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from lampq.adapters.onnx.emit import Emitter
from lampq.core.values.errors import AdapterError

LOWEST_OPSET = 13
"""The first operator set with all that is written here."""
# From here on the axes of a reduction are an input.
_AXES_OPSET = 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GraphArray:
    """A float or bool tensor of a graph.

    Attributes:
        value: The tensor.
        sides: Lengths of its axes; one that grows with the number of samples is minus what a single sample takes; None
            where it is not known.
        ops: What it is computed with.
    """

    value: ir.Value
    sides: tuple[int | None, ...]
    ops: GraphOperators
    # NumPy leaves what stands on its right to it.
    __array_ufunc__ = None
    # What arrays of PyTorch have.
    device = dtype = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.sides)

    @property
    def shape(self) -> tuple[int, ...]:
        """`sides`, all of them known.

        Raises:
            AdapterError: One is not.
        """
        known = tuple(side for side in self.sides if side is not None)
        if len(known) < len(self.sides):
            raise AdapterError("it goes by position, and samples of this model have any length")
        return known

    def to(self, **_: Any) -> GraphArray:
        """Itself: there is one type and one place."""
        return self

    def reshape(self, shape: Sequence[int]) -> GraphArray:
        """The same numbers in another shape, at most one side of it negative."""
        sides = np.array([max(side, -1) for side in shape], dtype=np.int64)
        return self.ops.node("Reshape", (self, self.ops.constant(sides)), tuple(shape))

    def __add__(self, other: Any) -> GraphArray:
        return self.ops.binary("Add", self, other)

    def __radd__(self, other: Any) -> GraphArray:
        return self.ops.binary("Add", other, self)

    def __sub__(self, other: Any) -> GraphArray:
        return self.ops.binary("Sub", self, other)

    def __rsub__(self, other: Any) -> GraphArray:
        return self.ops.binary("Sub", other, self)

    def __mul__(self, other: Any) -> GraphArray:
        return self.ops.binary("Mul", self, other)

    def __rmul__(self, other: Any) -> GraphArray:
        return self.ops.binary("Mul", other, self)

    def __truediv__(self, other: Any) -> GraphArray:
        return self.ops.binary("Div", self, other)

    def __rtruediv__(self, other: Any) -> GraphArray:
        return self.ops.binary("Div", other, self)

    def __pow__(self, other: Any) -> GraphArray:
        return self.ops.binary("Pow", self, other)

    def __neg__(self) -> GraphArray:
        return self.ops.node("Neg", (self,), self.sides)

    def __lt__(self, other: Any) -> GraphArray:
        return self.ops.binary("Less", self, other)

    def __le__(self, other: Any) -> GraphArray:
        return self.ops.binary("LessOrEqual", self, other)

    def __gt__(self, other: Any) -> GraphArray:
        return self.ops.binary("Greater", self, other)

    def __ge__(self, other: Any) -> GraphArray:
        return self.ops.binary("GreaterOrEqual", self, other)


class GraphOperators:
    """The functions of NumPy that quantizers use, as nodes in front of one that reads the result.

    Args:
        emitter: Where nodes go.
        user: The node that they are in front of.
    """

    def __init__(self, emitter: Emitter, user: ir.Node) -> None:
        self._emit, self._user = emitter, user

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AdapterError(f"it computes {name}, which is not written in standard operators here")

    def array(self, value: ir.Value, sides: tuple[int | None, ...]) -> GraphArray:
        """A tensor of the graph to compute with."""
        return GraphArray(value=value, sides=sides, ops=self)

    def constant(self, numbers: np.ndarray) -> GraphArray:
        """Numbers of the type that they have."""
        return self.array(self._emit.constant(numbers), numbers.shape)

    def as_tensor(self, numbers: Any) -> GraphArray:
        """Numbers, float32."""
        return self.constant(np.asarray(numbers, dtype=np.float32))

    def node(
        self,
        op_type: str,
        inputs: Sequence[GraphArray | None],
        sides: tuple[int | None, ...],
        **attributes: Any,
    ) -> GraphArray:
        """The result of an operator; an input that is None is left out."""
        values = [None if array is None else array.value for array in inputs]
        return self.array(self._emit.before(self._user, op_type, values, **attributes), sides)

    def binary(self, op_type: str, left: Any, right: Any) -> GraphArray:
        """Two arrays, or an array and a number."""
        pair = self._array(left), self._array(right)
        return self.node(op_type, pair, _broadcast(*pair))

    def clip(self, values: GraphArray, low: float | None, high: float | None) -> GraphArray:
        """Values between two numbers, either of which may be None."""
        bounds = (None if bound is None else self.as_tensor(bound) for bound in (low, high))
        return self.node("Clip", (values, *bounds), values.sides)

    def round(self, values: GraphArray) -> GraphArray:
        """The nearest integer, of two the even one."""
        return self._unary("Round", values)

    def floor(self, values: GraphArray) -> GraphArray:
        """The next integer below."""
        return self._unary("Floor", values)

    def abs(self, values: GraphArray) -> GraphArray:
        """The magnitude."""
        return self._unary("Abs", values)

    def sqrt(self, values: GraphArray) -> GraphArray:
        """The square root."""
        return self._unary("Sqrt", values)

    def log2(self, values: GraphArray) -> GraphArray:
        """The logarithm to base 2."""
        return self._unary("Log", values) * (1 / math.log(2))

    def exp2(self, values: GraphArray) -> GraphArray:
        """Powers of 2."""
        return self.binary("Pow", 2.0, values)

    def amin(self, values: GraphArray, axis: int | tuple[int, ...], keepdims: bool = False) -> GraphArray:
        """The smallest along axes."""
        return self._reduce("ReduceMin", values, axis, keepdims)

    def amax(self, values: GraphArray, axis: int | tuple[int, ...], keepdims: bool = False) -> GraphArray:
        """The largest along axes."""
        return self._reduce("ReduceMax", values, axis, keepdims)

    def where(self, condition: GraphArray, left: Any, right: Any) -> GraphArray:
        """Left where the condition holds, else right."""
        three = condition, self._array(left), self._array(right)
        return self.node("Where", three, _broadcast(*three))

    def zeros_like(self, values: GraphArray) -> GraphArray:
        """A zero that stands for as many as there are values."""
        return self.as_tensor(0.0)

    def moveaxis(self, values: GraphArray, source: int, destination: int) -> GraphArray:
        """Values with one axis elsewhere."""
        order = [axis for axis in range(values.ndim) if axis != source % values.ndim]
        order.insert(destination % values.ndim, source % values.ndim)
        return self.node("Transpose", (values,), tuple(values.sides[axis] for axis in order), perm=order)

    def _array(self, something: Any) -> GraphArray:
        return something if isinstance(something, GraphArray) else self.as_tensor(something)

    def _unary(self, op_type: str, values: GraphArray) -> GraphArray:
        return self.node(op_type, (values,), values.sides)

    def _reduce(
        self, op_type: str, values: GraphArray, axis: int | tuple[int, ...], keepdims: bool
    ) -> GraphArray:
        axes = sorted(a % values.ndim for a in ((axis,) if isinstance(axis, int) else axis))
        sides = tuple(1 if a in axes else side for a, side in enumerate(values.sides))
        if not keepdims:
            sides = tuple(side for a, side in enumerate(sides) if a not in axes)
        if self._emit.opset < _AXES_OPSET:
            return self.node(op_type, (values,), sides, axes=axes, keepdims=int(keepdims))
        along = self.constant(np.array(axes, dtype=np.int64))
        return self.node(op_type, (values, along), sides, keepdims=int(keepdims))


def _broadcast(*arrays: GraphArray) -> tuple[int | None, ...]:
    """Sides of a result."""
    columns = itertools.zip_longest(*(array.sides[::-1] for array in arrays), fillvalue=1)
    longer = (tuple(dict.fromkeys(side for side in column if side != 1)) for column in columns)
    return tuple(1 if not sides else sides[0] if len(sides) == 1 else None for sides in longer)[::-1]
