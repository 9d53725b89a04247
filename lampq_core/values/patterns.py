"""Patterns that pick layers: pins (`head=8`) and ties (`blocks.*.attn.{q,k,v}`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lampq.core.values.errors import BudgetError, PlanError
from lampq.core.values.glob import Glob
from lampq.core.values.layer import KINDS, Layer
from lampq.core.values.product import KIND as PRODUCT
from lampq.core.values.product import Product
from lampq.core.values.width import Width, parse_width


class Named(Protocol):
    """A layer, or what is decided on it."""

    @property
    def name(self) -> str:
        """Unique in the model."""

    @property
    def kind(self) -> str:
        """Kind of the layer."""


def select(layers: Sequence[Named], pattern: str) -> list[int]:
    """Indices of the layers a pattern names: a kind (`head`), or a glob over layer names with `*` and `{a,b}`.

    Raises:
        PlanError: It picks no layer.
    """
    if pattern in (*KINDS, PRODUCT):
        picked = [i for i, layer in enumerate(layers) if layer.kind == pattern]
        if picked:
            return picked
    glob = Glob(pattern)
    picked = [i for i, layer in enumerate(layers) if glob.match(layer.name) is not None]
    if not picked:
        raise PlanError(f"pattern {pattern!r} matches no layer; `lampq inspect` lists names and kinds")
    return picked


def parse_rule(text: str, what: str = "pin") -> tuple[str, Width]:
    """`PATTERN=BITS` apart; BITS is `8`, `w8`, `a8` (the input) or `w8a8`.

    Args:
        text: The rule.
        what: What it is (pin, floor, ceiling), for the message.

    Raises:
        PlanError: There is no `=`, or what follows is no width.
    """
    pattern, equals, bits = text.rpartition("=")
    try:
        if equals and pattern.strip():
            return pattern.strip(), parse_width(bits)
    except BudgetError as err:
        raise PlanError(f"{what} {text!r}: write PATTERN=BITS; {err}") from err
    raise PlanError(f"{what} {text!r}: write PATTERN=BITS with 1 to 8 bits, for example head=8 or fc1=w4a8")


def tie_groups(layers: Sequence[Layer | Product], pattern: str) -> list[tuple[int, ...]]:
    """Groups of layers that must take the same option.

    Layers belong together when they match with the same text under every `*`; a brace list `{q,k,v}` names the
    members of a group. So `blocks.*.attn.{q,k,v}` ties q, k and v within each block. A kind (`fc1`) ties all its
    layers.

    Raises:
        PlanError: The pattern ties nothing.
    """
    if pattern in (*KINDS, PRODUCT):
        of_kind = tuple(index for index, layer in enumerate(layers) if layer.kind == pattern)
        if len(of_kind) > 1:
            return [of_kind]
    glob = Glob(pattern)
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, layer in enumerate(layers):
        under_stars = glob.match(layer.name)
        if under_stars is not None:
            groups.setdefault(under_stars, []).append(index)
    tied = [tuple(group) for group in groups.values() if len(group) > 1]
    if not tied:
        raise PlanError(f"tie {pattern!r} joins no two layers; `lampq inspect` lists the names")
    return tied
