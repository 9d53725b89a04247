"""How an exported program's inputs and outputs are nested, which torch reads with imports and enumerations."""

from __future__ import annotations

import json
from typing import Any

_DEEPEST, _LONGEST = 16, 1 << 16
_SEQUENCES = frozenset({"builtins.tuple", "builtins.list"})
_MAPPINGS = frozenset({"builtins.dict", "collections.OrderedDict"})


def is_tree(text: str) -> bool:
    """Whether a text describes tuples, lists and dicts with names as keys, and nothing else.

    Other types may import what they name (`collections.defaultdict`), and the keys of a call's keyword arguments
    become Python code: so keys must be identifiers.

    >>> is_tree('[1, {"type": null, "context": null, "children_spec": []}]')
    True
    """
    if len(text) > _LONGEST:
        return False
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, list) and len(content) == 2 and content[0] == 1 and _is_node(content[1], 0)


def _is_node(node: Any, depth: int) -> bool:
    if depth > _DEEPEST or not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"}:
        return False
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if not isinstance(children, list) or not all(_is_node(child, depth + 1) for child in children):
        return False
    if kind is None:
        return context is None and not children
    if not isinstance(kind, str) or not isinstance(context, str):
        return False
    return (kind in _SEQUENCES and context == "null") or (kind in _MAPPINGS and _are_keys(context, children))


def _are_keys(context: str, children: list[Any]) -> bool:
    try:
        keys = json.loads(context)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(keys, list)
        and len(keys) == len(children)
        and all(isinstance(key, str) and key.isidentifier() for key in keys)
    )
