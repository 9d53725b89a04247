"""Rounded activations: which tensors of a forward pass are rounded, and how.

Places are found on the tape, so they are the same whether attention is a plain product, `nn.MultiheadAttention` or
a fused operator (which is recorded in its plain form when its factors are rounded).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lampq.adapters.torch.layout import Layout
from lampq.adapters.torch.runtime import Recording
from lampq.adapters.torch.tape import Call, Operation, Tape, Values
from lampq.adapters.torch.uses import Use
from lampq.core.treatments.roles import KEYS, LEFT, PROBABILITIES, QUERIES, RIGHT, VALUES
from lampq.core.values.activation_rule import ActivationRule, SiteAxes
from lampq.core.values.product import Product

PRODUCTS = frozenset({"aten::bmm", "aten::baddbmm", "aten::mm"})
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
        axes: Where the parts of its values lie.
    """

    name: str
    operation: int
    leaf: int
    axes: SiteAxes


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
                replaced[slot] = rule.apply(values[slot], site.axes, torch)
            return operation.call(values, replaced)

        return call


NOTHING = Rounding(rules={})
"""All activations stay float."""


def sites(recording: Recording) -> Iterator[Site]:
    """Every place of a tape where an activation can be rounded: inputs of layers, then factors of products."""
    tape = recording.tape
    for use, layout in recording.uses:
        if use.form != "lookup":
            yield Site(
                name=use.weight,
                operation=use.operation,
                leaf=use.data,
                axes=_input_axes(tape.shape(use.operation, use.data), use, layout, recording.samples),
            )
    for product in factors(recording):
        for leaf, name, axis in zip(product.leaves, product.sites, (-1, -2), strict=True):
            axes = SiteAxes(sums=axis).of(tape.shape(product.operation, leaf), recording.samples)
            yield Site(name=name, operation=product.operation, leaf=leaf, axes=axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """The operator of a product of two activations.

    Attributes:
        name: Of the product.
        operation: Index of the operator.
        leaves: Indices of the factors among its leaves, left and right.
        sites: Names of their sites.
    """

    name: str
    operation: int
    leaves: tuple[int, int]
    sites: tuple[str, str]


def factors(recording: Recording) -> Iterator[Factors]:
    """The products of two activations, in order, named by what they do in attention."""
    tape = recording.tape
    softmax = behind_softmax(tape)
    seen: Counter[str] = Counter()

    def numbered(name: str) -> str:
        seen[name] += 1
        return f"{name}#{seen[name]}" if seen[name] > 1 else name

    for index, leaves in recording.products:
        operation = tape.operations[index]
        what, roles = "product", (LEFT, RIGHT)
        if any(operation.slot(leaf) in softmax for leaf in leaves):
            turned = operation.slot(leaves[0]) not in softmax
            what, roles = "context", (VALUES, PROBABILITIES) if turned else (PROBABILITIES, VALUES)
        elif any(slot in softmax.values() for slot in operation.writes):
            what, roles = "scores", (QUERIES, KEYS)
        name = numbered(f"{operation.module}@{what}")
        left, right = (numbered(f"{operation.module}@{role}") for role in roles)
        yield Factors(name=name, operation=index, leaves=leaves, sites=(left, right))


def products_of(recording: Recording) -> Iterator[Product]:
    """Records of the products."""
    tape = recording.tape
    for product in factors(recording):
        left, right = (tape.shape(product.operation, leaf) for leaf in product.leaves)
        out = tape.operations[product.operation].shape
        if not left or not right:
            continue
        yield Product(
            name=product.name,
            left=product.sites[0],
            right=product.sites[1],
            left_values=max(1, math.prod(left) // recording.samples),
            right_values=max(1, math.prod(right) // recording.samples),
            macs=max(1, math.prod(out) * left[-1] // recording.samples),
        )


def _input_axes(shape: tuple[int, ...], use: Use, layout: Layout | None, samples: int) -> SiteAxes:
    if use.convolution is not None:
        return SiteAxes(sums=0)
    if use.turned or layout is None or not (len(shape) == 2 or (len(shape) == 3 and use.shared)):
        # Rows lie along another axis, or belong to no sample: what goes by position goes by channel alone.
        return SiteAxes(sums=-2 if use.turned else -1)
    return SiteAxes(inner=layout.inner, leading=len(shape) - 1).of(shape, samples)


def behind_softmax(tape: Tape) -> dict[int, int]:
    """Slot of a softmax's result, rearranged or not -> slot of the product that the softmax is of."""
    source: dict[int, int] = {}
    softmax_of: dict[int, int] = {}
    for operation in tape.operations:
        if not operation.reads or not operation.writes:
            continue
        first = operation.reads[0][1]
        if operation.name in PRODUCTS:
            source.update(dict.fromkeys(operation.writes, operation.writes[0]))
        elif operation.name in _SOFTMAX:
            softmax_of.update(dict.fromkeys(operation.writes, source.get(first, -1)))
        elif first in softmax_of and operation.rearranges:
            softmax_of.update(dict.fromkeys(operation.writes, softmax_of[first]))
        elif operation.rearranges or operation.name.removesuffix("_") in _ELEMENTWISE:
            origin = next((source[slot] for _, slot in operation.reads if slot in source), None)
            if origin is not None:
                source.update(dict.fromkeys(operation.writes, origin))
    return softmax_of
