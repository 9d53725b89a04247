"""A model's forward pass written down operator by operator, to be replayed from any point.

A module is Python code, and a hook sees only what the code passes through modules: not a weight handed
straight to `linear`, nor what happens inside a fused call. The tape is taken one level deeper, where every
model, be it a plain module, `nn.MultiheadAttention` or an exported program, is the same short list of
operators on tensors. Replaying it gives the very same numbers, because it calls the very same kernels;
autograd works through it.

A tape holds for one input shape. It does not hold for a forward pass that decides by the values it computes;
such passes are recognised when they are recorded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

Values = dict[int, torch.Tensor]
"""Tensors by slot: a slot is the number of a tensor on the tape."""
Named = Mapping[str, torch.Tensor]
"""Tensors by name: weights, inputs or outputs."""

# Operators that only rearrange or cast; views are recognised by their schema.
_COPIES = frozenset(
    {"aten::clone", "aten::_to_copy", "aten::contiguous", "aten::_unsafe_view", "aten::lift_fresh"}
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """One operator call.

    Attributes:
        function: The operator.
        leaves: Its arguments, flattened; where `reads` has an index, a tensor of that slot belongs.
        structure: How to put the leaves back into (args, kwargs); None where the leaves are the arguments.
        reads: Index among the leaves -> slot.
        writes: Slots of its tensor results, in order.
        shape: Shape of the first of them.
        dtype: Its type, or None where there is none.
        floats: Which results are floating point.
        module: Path of the module that was running.
    """

    function: torch._ops.OpOverload
    leaves: tuple[Any, ...]
    structure: Any
    reads: tuple[tuple[int, int], ...]
    writes: tuple[int, ...]
    shape: tuple[int, ...]
    module: str
    dtype: torch.dtype | None = None
    floats: tuple[bool, ...] = ()

    @property
    def name(self) -> str:
        """`aten::addmm`."""
        return self.function._schema.name

    @property
    def rearranges(self) -> bool:
        """Whether its results hold the values of its argument and nothing else."""
        returns = self.function._schema.returns
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        return views or self.name in _COPIES

    def call(self, values: Mapping[int, torch.Tensor], replaced: Mapping[int, torch.Tensor]) -> Any:
        """Run it on tensors by slot; `replaced` (by slot) takes precedence."""
        leaves = list(self.leaves)
        for index, slot in self.reads:
            replacement = replaced.get(slot)
            leaves[index] = values[slot] if replacement is None else replacement
        args, kwargs = self.arguments(leaves)
        return self.function(*args, **kwargs)

    def arguments(self, leaves: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Leaves put back into (args, kwargs)."""
        return (leaves, {}) if self.structure is None else tree_unflatten(leaves, self.structure)

    def named_leaves(self) -> dict[str, Any]:
        """Names of the operator's arguments -> indices of what was passed among the leaves."""
        args, kwargs = self.arguments(list(range(len(self.leaves))))
        return dict(zip((a.name for a in self.function._schema.arguments), args, strict=False)) | kwargs

    def slot(self, leaf: int) -> int | None:
        """Slot of the tensor at an index among the leaves, None where there is none."""
        return next((slot for index, slot in self.reads if index == leaf), None)

    def read_slot(self, leaf: int) -> int:
        """Slot of a tensor that must be at an index among the leaves.

        Raises:
            KeyError: There is none.
        """
        return dict(self.reads)[leaf]

    def mutated(self) -> list[int]:
        """Slots of the arguments that it overwrites."""
        named = self.named_leaves()
        written = [a.name for a in self.function._schema.arguments if a.alias_info and a.alias_info.is_write]
        slots = dict(self.reads)
        leaves = tree_flatten([named[name] for name in written if name in named])[0]
        return [slots[leaf] for leaf in leaves if leaf in slots]


Call: TypeAlias = Callable[[int, Operation, Values], Any]
"""Runs an operator in place of `Operation.call`: (index, operation, values) to its result."""


class Tape:
    """A recorded forward pass.

    Attributes:
        operations: The operators in the order they ran, those without any effect on the result left out.
        weights: Name -> slot of every parameter and buffer that was read.
        constants: Slot -> tensor made outside the recorded operators.
        inputs: Name -> slot of every input, samples first.
        outputs: Name -> slot of every output.
        obstacle: The operator that makes the tape stand for its own batch only, or None.
        random: An operator that draws random numbers, or None.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        weights: Mapping[str, int],
        constants: Values,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        obstacle: str | None = None,
        random: str | None = None,
    ) -> None:
        self.operations = tuple(operations)
        self.weights = dict(weights)
        self.constants = dict(constants)
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self.obstacle = obstacle
        self.random = random
        self._last_use: dict[int, int] = {}
        for index, operation in enumerate(self.operations):
            for _, slot in operation.reads:
                self._last_use[slot] = index
        self._shapes: dict[int | None, tuple[int, ...]] = {
            op.writes[0]: op.shape for op in self.operations if op.writes
        }
        self._last_use.update(dict.fromkeys(self.outputs.values(), len(self.operations)))
        self._permanent = frozenset((*self.weights.values(), *self.constants))
        self._dropped: list[tuple[int, ...]] = [
            tuple(
                slot
                for slot in dict.fromkeys(slot for _, slot in operation.reads)
                if self._last_use[slot] == index and slot not in self._permanent
            )
            for index, operation in enumerate(self.operations)
        ]

    @property
    def result_bytes(self) -> int:
        """Bytes of what the operators give, at single precision, views of it left out: about what gradients keep."""
        return sum(
            4 * math.prod(operation.shape) for operation in self.operations if not operation.rearranges
        )

    def start(self, weights: Named, inputs: Named) -> Values:
        """Values before the first operator."""
        values = dict(self.constants)
        values.update((slot, weights[name]) for name, slot in self.weights.items())
        values.update((slot, inputs[name]) for name, slot in self.inputs.items())
        return values

    def play(
        self,
        values: Values,
        *,
        begin: int = 0,
        end: int | None = None,
        call: Call | None = None,
    ) -> Values:
        """Run the operators `begin` to `end` (exclusive) and forget what nothing later needs.

        Args:
            values: Tensors by slot, as `start` or an earlier `play` up to `begin` left them; not changed.
            begin: First operator.
            end: One past the last operator; None runs to the end.
            call: Runs the operators.

        Returns:
            The values that later operators need.
        """
        values = dict(values)
        for index in range(begin, len(self.operations) if end is None else end):
            operation = self.operations[index]
            result = operation.call(values, {}) if call is None else call(index, operation, values)
            for slot, tensor in zip(operation.writes, tensors(result), strict=True):
                values[slot] = tensor
            for slot in self._dropped[index]:
                values.pop(slot, None)
        return values

    def run(self, weights: Named, inputs: Named, call: Call | None = None) -> dict[str, torch.Tensor]:
        """The outputs of inputs of the recorded shapes."""
        return self.results(self.play(self.start(weights, inputs), call=call))

    def results(self, values: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs among the values after the last operator, by name."""
        return {name: values[slot] for name, slot in self.outputs.items()}

    def with_outputs(self, more: Mapping[str, int]) -> Tape:
        """The same tape with further tensors among its outputs: name -> slot."""
        return Tape(
            self.operations,
            self.weights,
            self.constants,
            self.inputs,
            {**self.outputs, **more},
            self.obstacle,
            self.random,
        )

    def floating(self, weights: Named, inputs: Named) -> dict[int, bool]:
        """Slot -> whether it holds floating point."""
        kinds = {slot: tensor.is_floating_point() for slot, tensor in self.constants.items()}
        kinds.update((slot, weights[name].is_floating_point()) for name, slot in self.weights.items())
        kinds.update((slot, inputs[name].is_floating_point()) for name, slot in self.inputs.items())
        for operation in self.operations:
            kinds.update(zip(operation.writes, operation.floats, strict=True))
        return kinds

    def first_use(self, weight: str) -> int:
        """Index of the first operator that reads a weight."""
        slot = self.weights[weight]
        return next(i for i, op in enumerate(self.operations) if any(read == slot for _, read in op.reads))

    def shape(self, operation: int, leaf: int) -> tuple[int, ...]:
        """Shape of a tensor that an operator reads, where it is the first result of another; else ()."""
        return self._shapes.get(self.operations[operation].slot(leaf), ())

    def cuts(self) -> list[bool]:
        """For i = 0 .. number of operators: whether values taken before operator i can be used repeatedly.

        They cannot where a later operator overwrites memory that is older than the cut.
        """
        possible = [True] * (len(self.operations) + 1)
        born = self._storage_births()
        for index, operation in enumerate(self.operations):
            for slot in operation.mutated():
                for cut in range(born.get(slot, -1) + 1, index + 1):
                    possible[cut] = False
        return possible

    def _storage_births(self) -> dict[int, int]:
        """Slot -> index of the operator that made the memory it lies in (views lie in that of their base)."""
        born: dict[int, int] = {}
        for index, operation in enumerate(self.operations):
            read = [slot for _, slot in operation.reads]
            aliased = any(r.alias_info is not None for r in operation.function._schema.returns)
            origin = min((born.get(slot, -1) for slot in read), default=index) if aliased else index
            for slot in operation.writes:
                born.setdefault(slot, origin)
        return born


def tensors(result: Any) -> list[torch.Tensor]:
    """The tensors an operator returns, in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
