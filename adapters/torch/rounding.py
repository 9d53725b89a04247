"""Rounded activations: which tensors of a forward pass are rounded, and how.

Places are found on the tape, so they are the same whether attention is a plain product, `nn.MultiheadAttention` or
a fused operator (which is recorded in its plain form when its factors are rounded).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lampq.adapters.torch.runtime import Recording
from lampq.adapters.torch.tape import Call, Operation, Tape, Values
from lampq.core.values.activation_grid import ActivationGrid, ActivationRule

_PRODUCTS = frozenset({"aten::bmm", "aten::baddbmm", "aten::mm"})
_SOFTMAX = frozenset({"aten::_softmax", "aten::_safe_softmax"})
# What may come between a product and its softmax: scales, masks, position biases.
_ELEMENTWISE = frozenset({f"aten::{n}" for n in ("add", "sub", "mul", "div", "masked_fill", "where")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place where an activation can be rounded.

    Attributes:
        name: The parameter whose layer reads it, or `MODULE@queries`, `@keys`, `@probabilities`, `@values` for the
            factors of attention (`@left`, `@right` of other products), with `#2`, `#3`, ... where they recur.
        operation: Index of the operator that reads it.
        leaf: Index of the activation among the operator's leaves.
        axis: The axis that the product sums over; 0 for a convolution, whose images are the tokens.
    """

    name: str
    operation: int
    leaf: int
    axis: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounding:
    """How a forward pass rounds its activations.

    Attributes:
        rules: Name of a site -> rule; other sites stay float.
    """

    rules: Mapping[str, ActivationRule]

    @property
    def products(self) -> bool:
        """Whether factors of products (queries, keys, probabilities, values) are rounded."""
        return any("@" in name for name in self.rules)

    def changed(self, rules: Mapping[str, ActivationRule | None]) -> Rounding:
        """The same with some rules replaced; None takes one away."""
        merged = {**self.rules, **rules}
        return Rounding(rules={name: rule for name, rule in merged.items() if rule is not None})

    def call(self, recording: Recording) -> Call | None:
        """A `call` for `Tape.play`; None where nothing is rounded."""
        plan: dict[int, list[tuple[Site, ActivationRule]]] = {}
        for site in sites(recording) if self.rules else ():
            if site.name in self.rules:
                plan.setdefault(site.operation, []).append((site, self.rules[site.name]))
        if not plan:
            return None

        def call(index: int, operation: Operation, values: Values) -> Any:
            replaced = {}
            for site, rule in plan.get(index, ()):
                slot = operation.slot(site.leaf)
                assert slot is not None  # Sites are tensors.
                replaced[slot] = rounded(rule, values[slot], site.axis)
            return operation.call(values, replaced)

        return call


NOTHING = Rounding(rules={})
"""All activations stay float."""


def sites(recording: Recording) -> Iterator[Site]:
    """Every place of a tape where an activation can be rounded: inputs of layers, then factors of products."""
    for use, _ in recording.uses:
        if use.form != "lookup":
            axis = 0 if use.convolution is not None else -2 if use.turned else -1
            yield Site(name=use.weight, operation=use.operation, leaf=use.data, axis=axis)
    tape = recording.tape
    softmax = _behind_softmax(tape)
    seen: dict[str, int] = {}
    for index, factors in recording.products:
        operation = tape.operations[index]
        attends = any(operation.slot(leaf) in softmax for leaf in factors)
        before_softmax = any(slot in softmax.values() for slot in operation.writes)
        roles = ("left", "right")
        if attends:
            turned = operation.slot(factors[0]) not in softmax
            roles = ("values", "probabilities") if turned else ("probabilities", "values")
        elif before_softmax:
            roles = ("queries", "keys")
        for leaf, role, axis in zip(factors, roles, (-1, -2), strict=True):
            name = f"{operation.module}@{role}"
            seen[name] = seen.get(name, 0) + 1
            suffix = f"#{seen[name]}" if seen[name] > 1 else ""
            yield Site(name=name + suffix, operation=index, leaf=leaf, axis=axis)


def rounded(rule: ActivationRule, values: torch.Tensor, axis: int) -> torch.Tensor:
    """Rounded values, ties to even codes; a token is a line along `axis` (an image, for axis 0)."""
    if isinstance(rule, ActivationGrid):
        codes = torch.round(values / rule.scale).add_(rule.zero_point).clamp_(0, rule.top)
        return codes.sub_(rule.zero_point).mul_(rule.scale)
    axes = tuple(range(1, values.dim())) if axis == 0 else (axis,)
    top = (1 << rule.bits) - 1
    low = values.amin(axes, keepdim=True).clamp_max(0)
    high = values.amax(axes, keepdim=True).clamp_min(0)
    scale = ((high - low) / top).clamp_min(torch.finfo(values.dtype).tiny)
    zero = torch.round(-low / scale).clamp_(0, top)
    return (torch.round(values / scale) + zero).clamp_(0, top).sub_(zero).mul_(scale)


def _behind_softmax(tape: Tape) -> dict[int, int]:
    """Slot of a softmax's result, rearranged or not -> slot of the product that the softmax is of."""
    source: dict[int, int] = {}
    found: dict[int, int] = {}
    for operation in tape.operations:
        if not operation.reads or not operation.writes:
            continue
        first = operation.reads[0][1]
        if operation.name in _PRODUCTS:
            source.update(dict.fromkeys(operation.writes, operation.writes[0]))
        elif operation.name in _SOFTMAX:
            found.update(dict.fromkeys(operation.writes, source.get(first, -1)))
        elif first in found and operation.rearranges:
            found.update(dict.fromkeys(operation.writes, found[first]))
        elif operation.rearranges or operation.name.removesuffix("_") in _ELEMENTWISE:
            origin = next((source[slot] for _, slot in operation.reads if slot in source), None)
            if origin is not None:
                source.update(dict.fromkeys(operation.writes, origin))
    return found
