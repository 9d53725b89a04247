"""Patterns that pick layers: pins (`head=8`) and ties (`blocks.*.attn.{q,k,v}`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lampq.core.errors import PlanError
from lampq.core.layer import KINDS, Layer


def select(layers: Sequence[Layer], pattern: str) -> list[int]:
    """Indices of the layers a pattern names: a kind (`head`), or a glob over layer names with `*` and `{a,b}`.

    Raises:
        PlanError: It picks no layer.
    """
    if pattern in KINDS:
        picked = [i for i, layer in enumerate(layers) if layer.kind == pattern]
        if picked:
            return picked
    expression = _compile(pattern)
    picked = [i for i, layer in enumerate(layers) if expression.fullmatch(layer.name)]
    if not picked:
        raise PlanError(f"pattern {pattern!r} matches no layer; `lampq inspect` lists names and kinds")
    return picked


def parse_pin(text: str) -> tuple[str, int]:
    """`pattern=bits` apart.

    Raises:
        PlanError: There is no `=`, or the width is no integer from 1 to 8.
    """
    pattern, equals, bits = text.rpartition("=")
    if not equals or not pattern or not bits.strip().isdigit() or not 1 <= int(bits) <= 8:
        raise PlanError(f"pin {text!r}: write PATTERN=BITS with 1 to 8 bits, for example head=8")
    return pattern.strip(), int(bits)


def tie_groups(layers: Sequence[Layer], pattern: str) -> list[tuple[int, ...]]:
    """Groups of layers that must take the same option.

    Layers belong together when they match with the same text under every `*`; a brace list `{q,k,v}` names the
    members of a group. So `blocks.*.attn.{q,k,v}` ties q, k and v within each block.

    Raises:
        PlanError: The pattern ties nothing.
    """
    expression = _compile(pattern)
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, layer in enumerate(layers):
        match = expression.fullmatch(layer.name)
        if match:
            groups.setdefault(match.groups(), []).append(index)
    tied = [tuple(group) for group in groups.values() if len(group) > 1]
    if not tied:
        raise PlanError(f"tie {pattern!r} joins no two layers; `lampq inspect` lists the names")
    return tied


def _compile(pattern: str) -> re.Pattern[str]:
    pieces: list[str] = []
    depth = 0
    for char in pattern:
        if char == "*":
            # Within a brace list a star only matches; outside it also tells groups apart.
            pieces.append("(?:.*?)" if depth else "(.*?)")
        elif char == "?":
            pieces.append("." if depth else "(.)")
        elif char == "{":
            depth += 1
            pieces.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            pieces.append(")")
        elif char == "," and depth:
            pieces.append("|")
        else:
            pieces.append(re.escape(char))
    if depth:
        raise PlanError(f"pattern {pattern!r}: a brace is not closed")
    return re.compile("".join(pieces))
