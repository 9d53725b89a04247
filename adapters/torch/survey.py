"""Find every use of every weight on a tape, and say why the other weights stay as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lampq.adapters.torch.tape import Operation, Tape, tensors
from lampq.adapters.torch.uses import Box, Use
from lampq.core.values.layer import worth_quantizing

# A smaller table is not worth a lookup of its own.
SMALLEST_TABLE = 4096
_CONSTANT = "multiplies a constant"
# Operator -> positions of the two factors among its arguments.
_PRODUCTS = {"aten::mm": (0, 1), "aten::addmm": (1, 2), "aten::bmm": (0, 1), "aten::baddbmm": (1, 2)}
MULTIPLYING = {**_PRODUCTS, "aten::convolution": (0, 1)}
"""Operators whose inputs can be rounded, with the positions of the two factors among their arguments."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """What a tape tells about a model's weights.

    Attributes:
        uses: Parameter -> its uses, parameters in the order they are first used.
        skipped: Parameter -> why it stays as it is; weights of two or more axes only.
        products: Operators that multiply two activations, in order: (index, leaves of the two factors).
    """

    uses: Mapping[str, tuple[Use, ...]]
    skipped: Mapping[str, str]
    products: tuple[tuple[int, tuple[int, int]], ...]


def survey(tape: Tape, weights: Mapping[str, torch.Tensor], *, embeddings: bool = True) -> Survey:
    """Find every use of every weight on a tape.

    Args:
        tape: A recorded forward pass.
        weights: Parameters and buffers by name.
        embeddings: Whether tables that are looked up count as weights.
    """
    return _Surveyor(tape, weights).survey(embeddings)


def places_of(tape: Tape, uses: Sequence[Use]) -> dict[str, str]:
    """Kinds that show in a weight's place: `patch_embed` reads the input itself, `head` gives the output."""
    kinds: dict[str, str] = {}
    for result in tape.outputs.values():
        kinds.update(_head(tape, uses, result))
    for use in uses:
        if use.form == "conv" and tape.operations[use.operation].slot(use.data) in tape.inputs.values():
            kinds[use.weight] = "patch_embed"
    return kinds


def _head(tape: Tape, uses: Sequence[Use], result: int) -> dict[str, str]:
    """The weight of the last product before an output, if nothing comes in between."""
    for operation in reversed(tape.operations):
        if result not in operation.writes:
            continue
        product = next((use for use in uses if tape.operations[use.operation] is operation), None)
        if product is not None:
            return {product.weight: "head"}
        # A bias may be added after the product.
        if not operation.reads or not (operation.rearranges or operation.name == "aten::add"):
            break
        result = operation.reads[0][1]
    return {}


class _Surveyor:
    def __init__(self, tape: Tape, weights: Mapping[str, torch.Tensor]) -> None:
        self._tape = tape
        self._weights = weights
        # Slot -> (weight, for each axis of it the index of every entry), through all views.
        self._traced: dict[int, tuple[str, list[torch.Tensor]]] = {
            slot: (name, _axis_indices(weights[name].shape))
            for name, slot in tape.weights.items()
            if weights[name].dim() >= 2 and weights[name].is_floating_point()
        }
        self._active = set(tape.inputs.values())
        self._uses: dict[str, list[Use]] = {}
        self._reasons: dict[str, str] = {}
        self._products: list[tuple[int, tuple[int, int]]] = []
        # Slot -> shape of the first result of its operator.
        self._shapes: dict[int, tuple[int, ...]] = {}

    def survey(self, embeddings: bool) -> Survey:
        for index, operation in enumerate(self._tape.operations):
            self._visit(index, operation)
        for name, uses in self._uses.items():
            reason = self._objection(name, uses, embeddings)
            if self._reasons.get(name) == _CONSTANT:
                # Beside products with activations: the zeros that a recurrence starts from.
                del self._reasons[name]
            if reason is not None:
                self._reasons.setdefault(name, reason)
        for name, weight in self._weights.items():
            if weight.dim() >= 2 and weight.is_floating_point() and name not in self._tape.weights:
                self._reasons[name] = "does not influence the output"
        for name in self._reasons:
            self._uses.pop(name, None)
        return Survey(
            uses={name: tuple(uses) for name, uses in self._uses.items()},
            skipped=self._reasons,
            products=tuple(self._products),
        )

    def _visit(self, index: int, operation: Operation) -> None:
        traced = [(leaf, *self._traced[slot]) for leaf, slot in operation.reads if slot in self._traced]
        self._shapes.update(dict.fromkeys(operation.writes[:1], operation.shape))
        if any(slot in self._active for _, slot in operation.reads):
            self._active.update(operation.writes)
        factors = _PRODUCTS.get(operation.name)
        if not traced:
            if factors and all(operation.slot(leaf) in self._active for leaf in factors):
                self._products.append((index, factors))
            return
        if len(traced) == 1 and len(operation.reads) == 1 and operation.rearranges:
            self._follow(operation, traced[0])
            return
        for leaf, name, indices in traced:
            use = self._use(index, operation, leaf, name, indices)
            if isinstance(use, Use):
                self._uses.setdefault(name, []).append(use)
            else:
                self._reasons.setdefault(name, use)

    def _follow(self, operation: Operation, traced: tuple[int, str, list[torch.Tensor]]) -> None:
        leaf, name, indices = traced
        if operation.name in ("aten::_to_copy", "aten::lift_fresh"):
            moved: list[Any] = [[tensor] for tensor in indices]
        else:
            moved = [_rearranged(operation, leaf, tensor) for tensor in indices]
        for place, slot in enumerate(operation.writes):
            self._traced[slot] = (name, [results[place] for results in moved])

    def _use(
        self, index: int, operation: Operation, leaf: int, name: str, indices: list[torch.Tensor]
    ) -> Use | str:
        """The use, or what stands against quantizing the weight."""
        short = operation.name.removeprefix("aten::")
        common: dict[str, Any] = {
            "weight": name,
            "operation": index,
            "factor": leaf,
            "module": operation.module,
        }
        common["box"] = _box(indices)
        outputs = math.prod(operation.shape)
        if operation.name in _PRODUCTS and leaf in _PRODUCTS[operation.name]:
            left, right = _PRODUCTS[operation.name]
            turned = leaf == left
            data = right if turned else left
            if operation.slot(data) not in self._active:
                return _CONSTANT
            axis = _only_axis(indices, -2 if turned else -1)
            batched = indices[0].dim() == 3
            shared = batched and (indices[0].shape[0] == 1 or not _varying(indices, 0))
            if axis is None:
                return "its output channels have no axis of their own"
            contraction = indices[0].shape[-1 if turned else -2]
            return Use(
                **common,
                form="linear",
                data=data,
                turned=turned,
                shared=shared,
                channel_axis=axis,
                multiplications=outputs * contraction,
            )
        if operation.name == "aten::convolution" and leaf == 1:
            return self._convolution(operation, indices, common)
        if operation.name == "aten::embedding" and leaf == 0:
            axis = _only_axis(indices, 0)
            if axis is None:
                return "its rows have no axis of their own"
            if operation.slot(1) not in self._active:
                return "looked up in the same places for every sample"
            return Use(
                **common,
                form="lookup",
                data=1,
                turned=False,
                shared=False,
                channel_axis=axis,
                multiplications=0,
            )
        return f"used by {short}"

    def _convolution(
        self, operation: Operation, indices: list[torch.Tensor], common: Mapping[str, Any]
    ) -> Use | str:
        args, _ = operation.arguments(operation.leaves)
        stride, padding, dilation, transposed, _, groups = args[3:9]
        if operation.slot(0) not in self._active:
            return _CONSTANT
        # Stored as (inputs, outputs of a group, ...): only one group, or one channel a group, has an axis of outputs.
        axis = _only_axis(indices, 1 if transposed and groups == 1 else 0)
        if axis is None or (transposed and groups > 1 and indices[0].shape[:2] != (groups, 1)):
            return "its output channels have no axis of their own"
        kernel = tuple(indices[0].shape[2:])
        spread = [tuple(v) * len(kernel) if len(v) == 1 else tuple(v) for v in (stride, padding, dilation)]
        per_output = math.prod(indices[0].shape[1:])
        outputs = math.prod(operation.shape)
        if transposed:
            pixels = math.prod(self._shapes.get(operation.slot(0) or 0, ())[2:]) or 1
            outputs, per_output = operation.shape[0] * pixels, indices[0].numel()
        return Use(
            **common,
            form="transposed" if transposed else "conv",
            data=0,
            turned=False,
            shared=False,
            channel_axis=axis,
            multiplications=outputs * per_output,
            convolution=(spread[0], spread[1], spread[2], int(groups), kernel),
        )

    def _objection(self, name: str, uses: Sequence[Use], embeddings: bool) -> str | None:
        """Why a weight with these uses is left alone, or None."""
        if not worth_quantizing(self._weights[name].shape):
            return f"only {self._weights[name].numel()} weights"
        if all(use.form == "lookup" for use in uses):
            if not embeddings:
                return "an embedding table; ask for it with embeddings=True"
            if self._weights[name].numel() < SMALLEST_TABLE:
                return f"an embedding table of only {self._weights[name].numel()} weights"
        if len({use.channel_axis for use in uses if use.form != "lookup"}) > 1:
            return "used with its rows and with its columns as channels"
        boxes = list({use.box for use in uses})
        if any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]):
            return "used in parts that overlap"
        return None


def _rearranged(operation: Operation, leaf: int, index: torch.Tensor) -> list[torch.Tensor]:
    slot = operation.read_slot(leaf)
    try:
        return tensors(operation.call({slot: index}, {}))
    except RuntimeError:
        # A view that the weight's memory allows and that of an expanded index does not.
        return tensors(operation.call({slot: index.contiguous()}, {}))


def _axis_indices(shape: Sequence[int]) -> list[torch.Tensor]:
    """For each axis a tensor of `shape` that holds the index along it; it takes no memory to speak of."""
    indices = []
    for axis, length in enumerate(shape):
        line = torch.arange(length, dtype=torch.int32).reshape(-1, *(1 for _ in shape[axis + 1 :]))
        indices.append(line.expand(shape))
    return indices


def _varying(indices: Sequence[torch.Tensor], axis: int) -> list[int]:
    """Axes of the weight whose index changes along an axis of the factor."""
    return [i for i, index in enumerate(indices) if index.shape[axis] > 1 and _changes(index, axis)]


def _changes(index: torch.Tensor, axis: int) -> bool:
    corner: list[Any] = [0] * index.dim()
    corner[axis] = slice(None)
    line = index[tuple(corner)]
    return bool((line != line[0]).any())


def _only_axis(indices: Sequence[torch.Tensor], axis: int) -> int | None:
    """The one axis of the weight that runs along `axis` of the factor."""
    axes = _varying(indices, axis)
    if not axes and indices[0].shape[axis] == 1:
        # A single output: whichever axis of length 1 nothing else runs along.
        others = {
            i for a in range(indices[0].dim()) if a != axis % indices[0].dim() for i in _varying(indices, a)
        }
        axes = [i for i in range(len(indices)) if i not in others][:1]
    return axes[0] if len(axes) == 1 else None


def _box(indices: Sequence[torch.Tensor]) -> Box:
    return tuple(_range(index) for index in indices)


def _range(index: torch.Tensor) -> tuple[int, int]:
    """Smallest and largest entry; along an axis that repeats one entry (stride 0) the first stands for all.

    PyTorch would read every repetition: half a second a layer and recording in a ViT-S.
    """
    distinct = index[tuple(slice(None) if stride else slice(1) for stride in index.stride())]
    low, high = distinct.aminmax()
    return int(low), int(high)


def _overlap(one: Box, other: Box) -> bool:
    return all(a <= d and c <= b for (a, b), (c, d) in zip(one, other, strict=True))
