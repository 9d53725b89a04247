"""How relevance goes back through single operators: what arrives at the results is divided among the operands.

Each rule hands on all that it is given, up to results that no operand has a part in.

Source: Bach et al. (2015), layer-wise relevance propagation, doi:10.1371/journal.pone.0130140, for the alpha-beta rule;
Ranjan and Savakis (2024), LRP-QViT, arXiv:2401.11243, for what attention, normalizations and activations do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from lampq.adapters.torch.tape import Operation, Values, tensors
from lampq.core.values.errors import AdapterError

# Operator -> leaves of its factors, and of what it adds to their product.
_PRODUCTS: Mapping[str, tuple[int, int, int | None]] = {
    "mm": (0, 1, None),
    "bmm": (0, 1, None),
    "addmm": (1, 2, 0),
    "baddbmm": (1, 2, 0),
    "convolution": (0, 1, 2),
}
# Results are operands in other places, or chosen among them.
_CHOOSE = frozenset(
    ("cat", "stack", "index", "gather", "index_select", "constant_pad_nd", "roll", "flip", "repeat", "where")
).union(("masked_fill", "max_pool2d_with_indices", "amax", "max", "copy", "slice_scatter", "select_scatter"))
_AVERAGE = frozenset(("mean", "sum", "avg_pool2d", "_adaptive_avg_pool2d"))
_SUMS = frozenset(("add", "sub", "rsub"))
_FACTORS = frozenset(("mul", "div"))


def send_back(
    operation: Operation, operands: Values, active: Collection[int], arriving: Values, alpha: float
) -> Values:
    """Relevance of the operands that depend on the input, by slot.

    Args:
        operation: The operator.
        operands: What it read, by slot.
        active: Slots of floating point that depend on the input.
        arriving: Relevance of its results, by slot.
        alpha: Weight of the positive parts in products with weights, >= 1; that of the negative parts is 1 - alpha.

    Raises:
        AdapterError: There is no rule for the operator.
    """
    name = operation.name.removeprefix("aten::").removesuffix("_")
    reached = [slot for slot in dict.fromkeys(slot for _, slot in operation.reads) if slot in active]
    if not reached:
        return {}
    if operation.rearranges or name in _CHOOSE:
        return _chosen(operation, operands, reached, arriving)
    result, relevance = next(iter(arriving.items()))
    if result != operation.writes[0]:
        raise AdapterError(f"relevance: no rule for another result of {operation.name} than the first")
    if name in _PRODUCTS:
        return _product(operation, operands, reached, relevance, alpha)
    if name in _AVERAGE:
        run = _runner(operation, operands)
        return _in_proportion(run, {slot: operands[slot].abs() for slot in reached}, relevance)
    if name in _SUMS and len(reached) > 1:
        return _added({slot: operands[slot] for slot in reached}, relevance)
    fits = all(_spread_over(operands[slot], relevance) for slot in reached)
    if not fits or (len(reached) > 1 and name not in _FACTORS):
        raise AdapterError(f"relevance: no rule for {operation.name} in {operation.module or 'the model'}")
    part = relevance / len(reached)
    return {slot: part.sum_to_size(operands[slot].shape) for slot in reached}


def _chosen(operation: Operation, operands: Values, reached: Sequence[int], arriving: Values) -> Values:
    """Everything goes back to where it was taken from."""
    leaves = {slot: operands[slot].detach().requires_grad_() for slot in reached}
    overwritten = operation.mutated()
    with torch.enable_grad():
        fresh = {slot: leaf.clone() if slot in overwritten else leaf for slot, leaf in leaves.items()}
        results = dict(zip(operation.writes, tensors(operation.call(operands, fresh)), strict=True))
    sent = [results[slot] for slot in arriving]
    parts = torch.autograd.grad(sent, list(leaves.values()), list(arriving.values()), allow_unused=True)
    return {slot: part for slot, part in zip(leaves, parts, strict=True) if part is not None}


def _added(terms: Values, relevance: torch.Tensor) -> Values:
    """In proportion to the magnitudes of what is added up."""
    sizes = {
        slot: torch.nan_to_num(term.abs(), posinf=0.0).expand_as(relevance) for slot, term in terms.items()
    }
    whole = torch.stack(list(sizes.values())).sum(0)
    shares = _over(relevance, whole)
    return {slot: (size * shares).sum_to_size(terms[slot].shape) for slot, size in sizes.items()}


def _product(
    operation: Operation, operands: Values, reached: Sequence[int], relevance: torch.Tensor, alpha: float
) -> Values:
    left, right, addend = _PRODUCTS[operation.name.removeprefix("aten::").removesuffix("_")]
    added = None if addend is None else operation.slot(addend)
    without = {} if addend is None else {addend: _nothing(operation, relevance)}
    run = _runner(operation, operands, without)
    factors = {slot: operands[slot] for slot in map(operation.read_slot, (left, right))}
    moving = {slot: factor for slot, factor in factors.items() if slot in reached}
    parts: Values = {}
    if added in reached and added is not None:
        both = _added({added: operands[added], -1: run(factors)}, relevance)
        relevance, parts = both.pop(-1), both
    if len(moving) == len(factors):
        # Of two activations, terms count by their magnitude, and half goes to each factor.
        sizes = {slot: factor.abs() for slot, factor in factors.items()}
        shares = _in_proportion(run, sizes, relevance)
        return parts | {slot: share / len(shares) for slot, share in shares.items()}
    (data,) = moving
    (weight,) = (slot for slot in factors if slot not in moving)
    both_parts = [(alpha, 1.0), (1 - alpha, -1.0)] if alpha != 1 else [(1.0, 1.0)]
    for share, sign in both_parts:
        sent = _signed(run, data, weight, factors, relevance, sign)
        parts[data] = parts.get(data, 0) + share * sent
    return parts


def _signed(
    run: Callable[[Values], torch.Tensor],
    data: int,
    weight: int,
    factors: Values,
    relevance: torch.Tensor,
    sign: float,
) -> torch.Tensor:
    """In proportion to the terms of one sign in a product with a weight."""
    values = [factors[data].clamp(min=0), factors[data].clamp(max=0)]
    weights = [factors[weight].clamp(min=0), factors[weight].clamp(max=0)]
    leaves = [value.detach().requires_grad_() for value in values]
    with torch.enable_grad():
        terms = [
            run({data: leaf, weight: factor})
            for leaf, factor in zip(leaves, weights if sign > 0 else weights[::-1], strict=True)
        ]
        whole = terms[0] + terms[1]
    sent = torch.autograd.grad(whole, leaves, _over(relevance, whole.detach()))
    return values[0] * sent[0] + values[1] * sent[1]


def _in_proportion(
    run: Callable[[Values], torch.Tensor], operands: Values, relevance: torch.Tensor
) -> Values:
    """In proportion to the terms of what is linear in each of its operands, all at least 0."""
    leaves = {slot: operand.detach().requires_grad_() for slot, operand in operands.items()}
    with torch.enable_grad():
        whole = run(leaves)
    sent = torch.autograd.grad(whole, list(leaves.values()), _over(relevance, whole.detach()))
    return {slot: operands[slot] * part for slot, part in zip(leaves, sent, strict=True)}


def _runner(
    operation: Operation, operands: Values, leaves: Mapping[int, Any] | None = None
) -> Callable[[Values], torch.Tensor]:
    """The first result of an operator with some operands, by slot, or leaves replaced."""

    def run(replaced: Values) -> torch.Tensor:
        arguments = list(operation.leaves)
        for index, slot in operation.reads:
            arguments[index] = replaced.get(slot, operands[slot])
        for index, leaf in (leaves or {}).items():
            arguments[index] = leaf
        args, kwargs = operation.arguments(arguments)
        return tensors(operation.function(*args, **kwargs))[0]

    return run


def _nothing(operation: Operation, result: torch.Tensor) -> torch.Tensor | None:
    """What stands for an addend that is left out."""
    return None if operation.name == "aten::convolution" else torch.zeros_like(result)


def _over(relevance: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Relevance per unit of what it is divided among; nothing where there is nothing."""
    return torch.where(whole == 0, 0.0, relevance / torch.where(whole == 0, 1.0, whole))


def _spread_over(operand: torch.Tensor, result: torch.Tensor) -> bool:
    """Whether an operand takes part entry by entry, repeated or not."""
    try:
        return bool(torch.broadcast_shapes(operand.shape, result.shape) == result.shape)
    except RuntimeError:
        return False
