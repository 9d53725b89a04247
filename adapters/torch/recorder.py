"""Record a forward pass on a `Tape`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

from lampq.adapters.torch.tape import Named, Operation, Tape, Values, tensors

Forward = Callable[[Named, Named], Mapping[str, torch.Tensor]]
"""Weights and inputs in, outputs out, all by name."""

# Operators whose result is a Python number, so that Python code may branch on data.
_READS_VALUES = frozenset({"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero"})


def record(
    forward: Forward,
    weights: Named,
    inputs: Named,
    *,
    module: torch.nn.Module | None = None,
) -> tuple[Tape, dict[str, torch.Tensor]]:
    """Run a forward pass and write it down.

    Args:
        forward: The pass.
        weights: Parameters and buffers by name; a tensor under two names counts under the first.
        inputs: The inputs by name.
        module: Its submodules name the places of operators.

    Returns:
        The tape and the outputs.
    """
    with _places(module) as place, _Recorder(weights, inputs, place) as recorder:
        outputs = forward(weights, inputs)
    return recorder.finish(outputs), {name: tensor.detach() for name, tensor in outputs.items()}


class _Recorder(TorchDispatchMode):
    def __init__(self, weights: Named, inputs: Named, place: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Keyed by identity and weak: tensors of the pass are freed as they would be without a recorder.
        self._slots: Any = WeakIdKeyDictionary()
        self._count = 0
        self._names: dict[int, str] = {}
        for name, tensor in weights.items():
            if tensor not in self._slots:
                self._names[self._new(tensor)] = name
        # A tensor that is given twice is read under its first name.
        self._inputs: dict[str, int] = {}
        for name, tensor in inputs.items():
            if tensor not in self._slots:
                self._inputs[name] = self._new(tensor)
        self._operations: list[Operation] = []
        self._constants: Values = {}
        self._place = place
        self._obstacle: str | None = None
        self._random: str | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing compiles what is recorded; to see to that, PyTorch would import its compiler, a second of every run.
        return False

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        structure: Any
        leaves, structure = tree_flatten((args, kwargs or {}))
        reads = [(i, self._slot(leaf)) for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        result = func(*args, **(kwargs or {}))
        made = tensors(result)
        # A result may be an argument again: an operator in place, or a view that changes nothing.
        writes = tuple(self._slots[t] if t in self._slots else self._new(t) for t in made)
        place = self._place[-1] if self._place else ""
        where = f"{func._schema.name} in {place or 'the model'}"
        if func._schema.name in _READS_VALUES:
            self._obstacle = self._obstacle or where
        if _draws_random_numbers(func, args, kwargs or {}):
            self._random = self._random or where
        if not kwargs and not any(isinstance(arg, (list, tuple, dict)) for arg in args):
            structure = None
        self._operations.append(
            Operation(
                function=func,
                leaves=tuple(None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves),
                structure=structure,
                reads=tuple(reads),
                writes=writes,
                shape=tuple(made[0].shape) if made else (),
                module=place,
                dtype=made[0].dtype if made else None,
                floats=tuple(tensor.is_floating_point() for tensor in made),
            )
        )
        return result

    def finish(self, outputs: Mapping[str, torch.Tensor]) -> Tape:
        """The tape, once the pass is over."""
        ends = {name: self._slot(tensor) for name, tensor in outputs.items()}
        operations = _without_dead(self._operations, ends.values())
        read = {slot for operation in operations for _, slot in operation.reads} | set(ends.values())
        weights = {name: slot for slot, name in self._names.items() if slot in read}
        constants = {slot: tensor for slot, tensor in self._constants.items() if slot in read}
        return Tape(operations, weights, constants, self._inputs, ends, self._obstacle, self._random)

    def _new(self, tensor: torch.Tensor) -> int:
        slot = self._count
        self._count += 1
        self._slots[tensor] = slot
        return slot

    def _slot(self, tensor: torch.Tensor) -> int:
        slot: int | None = self._slots.get(tensor)
        if slot is None:
            slot = self._new(tensor)
            self._constants[slot] = tensor
        return slot


def _draws_random_numbers(
    function: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bool:
    if torch.Tag.nondeterministic_seeded not in function.tags:
        return False
    named = {a.name: a.default_value for a in function._schema.arguments}
    named.update(zip(named, args, strict=False))
    # Fused attention is marked as random for the sake of its dropout, which is off outside training.
    return (named | dict(kwargs)).get("dropout_p") != 0.0


def _without_dead(operations: Sequence[Operation], outputs: Iterable[int]) -> list[Operation]:
    """The operators that the results depend on."""
    needed = set(outputs)
    live: list[Operation] = []
    for operation in reversed(operations):
        # What an operator overwrites may be read through another view: such operators stay.
        if not operation.mutated() and not needed.intersection(operation.writes):
            continue
        needed.update(slot for _, slot in operation.reads)
        live.append(operation)
    return live[::-1]


@contextlib.contextmanager
def _places(module: torch.nn.Module | None) -> Iterator[list[str]]:
    """A stack whose top is the path of the submodule that is running."""
    stack: list[str] = []
    handles = []

    def leave(*_: Any) -> None:
        stack.pop()

    for name, child in [] if module is None else module.named_modules():
        handles.append(child.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        handles.append(child.register_forward_hook(leave, always_call=True))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()
