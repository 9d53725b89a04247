"""Outputs that jump, and the last tensors before them that move by degrees.

What is chosen by index (argmax, topk, suppression) or rounded to whole numbers does not move with the weights until
it jumps. Such outputs are judged at what they are computed from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from lampq.adapters.torch.tape import Operation, Tape

_JUMPS = frozenset(
    {
        *("argmax", "argmin", "topk", "sort", "argsort", "nonzero", "nms", "batched_nms", "round", "floor"),
        *(
            "ceil",
            "sign",
            "sgn",
            "heaviside",
            "bucketize",
            "searchsorted",
            "_unique2",
            "unique_dim",
            "kthvalue",
        ),
        *("unique_consecutive", "trunc", "floor_divide", "histc", "multinomial"),
    }
)
# A maximum with its place: the value itself moves by degrees.
_WITH_PLACE = frozenset({"max", "min", "median", "mode", "cummax", "cummin", "max_pool2d_with_indices"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A tensor that is judged in place of outputs.

    Attributes:
        name: The module that computes it, and the operator.
        slot: Its slot on the tape.
        stands_for: The outputs.
    """

    name: str
    slot: int
    stands_for: tuple[str, ...]


def fronts(tape: Tape, floating: Mapping[int, bool]) -> tuple[Front, ...]:
    """What stands for the outputs of a tape that jump.

    Args:
        tape: The tape.
        floating: Slot -> whether it holds floating point.
    """
    return _Paths(tape, floating).fronts()


class _Paths:
    """Which tensors move with the weights, and which of those jump."""

    def __init__(self, tape: Tape, floating: Mapping[int, bool]) -> None:
        self._tape = tape
        self._floating = floating
        self._weights = {slot for slot in tape.weights.values() if floating.get(slot, False)}
        self._makers: dict[int, tuple[int, Operation]] = {}
        self._moving: set[int] = set()
        self._jumped: set[int] = set()
        # Weights through all views of theirs.
        views = set(self._weights)
        self._at_weight: set[int] = set()
        for index, operation in enumerate(tape.operations):
            reads = [slot for _, slot in operation.reads]
            self._makers.update((slot, (index, operation)) for slot in operation.writes)
            if any(slot in views for slot in reads):
                if all(slot in views for slot in reads):
                    views.update(operation.writes)
                else:
                    self._at_weight.add(index)
                    self._moving.update(operation.writes)
                continue
            if not any(slot in self._moving for slot in reads):
                continue
            self._moving.update(operation.writes)
            self._jumped.update(self._jumping(operation, reads))

    def fronts(self) -> tuple[Front, ...]:
        jumping = {
            name: slot
            for name, slot in self._tape.outputs.items()
            if slot in self._moving and (slot in self._jumped or not self._floating.get(slot, False))
        }
        steady = {slot for name, slot in self._tape.outputs.items() if name not in jumping}
        sources = {name: list(self._front(slot)) for name, slot in jumping.items()}
        standing = {slot for group in sources.values() for slot in group} - steady
        for slot in sorted(standing, reverse=True):
            if self._follows(slot, (standing - {slot}) | steady):
                standing.discard(slot)
        names: dict[str, int] = {}
        made = []
        for slot in sorted(standing):
            stands_for = tuple(name for name, output in jumping.items() if self._reaches(output, slot))
            made.append(Front(name=self._name(slot, names), slot=slot, stands_for=stands_for))
        return tuple(made)

    def _jumping(self, operation: Operation, reads: list[int]) -> Iterator[int]:
        short = operation.name.rpartition("::")[2].removesuffix("_")
        if short in _JUMPS or any(slot in self._jumped for slot in reads):
            yield from operation.writes
        elif short in _WITH_PLACE:
            yield from operation.writes[1:]
        elif not operation.rearranges or operation.name == "aten::_to_copy":
            # Comparisons tell which side of a bend a number lies on; whole numbers jump.
            yield from (s for s in operation.writes if not self._floating.get(s, True) and self._is_whole(s))

    def _is_whole(self, slot: int) -> bool:
        made = self._makers.get(slot)
        return made is not None and made[1].dtype not in (torch.bool, None)

    def _front(self, slot: int) -> Iterator[int]:
        stack, seen = [slot], {slot}
        while stack:
            slot = stack.pop()
            if slot not in self._jumped and self._floating.get(slot, False) and slot in self._moving:
                yield self._bare(slot)
            elif slot in self._makers:
                fresh = [s for _, s in self._makers[slot][1].reads if s in self._moving and s not in seen]
                seen.update(fresh)
                stack += fresh

    def _bare(self, slot: int) -> int:
        """A tensor before it was only copied."""
        while slot in self._makers and self._makers[slot][1].name in ("aten::_to_copy", "aten::clone"):
            source = self._makers[slot][1].reads[0][1]
            if not self._floating.get(source, False):
                break
            slot = source
        return slot

    def _follows(self, slot: int, others: set[int]) -> bool:
        """Whether a tensor is computed from others without another weight."""
        stack, seen = [slot], {slot}
        while stack:
            made = self._makers.get(stack.pop())
            if made is None or made[0] in self._at_weight:
                return False
            reads = [s for _, s in made[1].reads if s in self._moving and s not in others]
            stack += [s for s in reads if s not in seen]
            seen.update(reads)
        return True

    def _reaches(self, output: int, slot: int) -> bool:
        stack, seen = [output], {output}
        while stack:
            here = stack.pop()
            if here == slot:
                return True
            made = self._makers.get(here)
            fresh = [] if made is None else [s for _, s in made[1].reads if s not in seen]
            seen.update(fresh)
            stack += fresh
        return False

    def _name(self, slot: int, names: dict[str, int]) -> str:
        operation = self._makers[slot][1]
        short = operation.name.rpartition("::")[2].strip("_")
        name = f"{operation.module}.{short}" if operation.module else short
        names[name] = names.get(name, 0) + 1
        return name if names[name] == 1 else f"{name}#{names[name]}"
