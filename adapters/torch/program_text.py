"""The JSON of an exported program, copied field by field as far as it is known to be harmless.

Torch turns this text into Python code: names become variables, formulas are evaluated by sympy, targets are looked
up among the attributes of torch, types of containers are imported. So every text must be what its field is for, and
what is only a remark (stack traces, guards, which are Python too) is left out.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lampq.adapters.torch.operators import is_operator
from lampq.adapters.torch.size_formulas import is_formula, is_symbol
from lampq.adapters.torch.tree_specs import is_tree
from lampq.core.values.errors import AdapterError
from lampq.core.values.messages import listed

_LARGEST_LIST = 1 << 28
_WORD = re.compile(r"[\w.\-]{0,500}")
# Dividing whole numbers with rounding to zero ends the process where the quotient is too large.
_PLAIN = re.compile(r"(?!trunc$)[\w.\-:,>|*/ ]{0,500}")
_VERIFIERS = frozenset({"TRAINING", "ATEN", ""})
# Fields whose text becomes the name of a Python variable.
_VARIABLES = frozenset({"name", "as_name", "forward_arg_names"})
# Remarks; torch looks some of their texts up.
_LEFT_OUT = frozenset({"metadata", "guards_code", "treespec_namedtuple_fields"})
_REFUSED = frozenset({"as_custom_obj", "custom_obj", "as_operator", "token"})


def clean_program(path: Path, program: Mapping[str, Any]) -> dict[str, Any]:
    """The program without what is only a remark.

    Args:
        path: The file, for messages.
        program: The JSON of a `models/NAME.json`.

    Raises:
        AdapterError: It calls what is no operator, or a text is not what its field is for.
    """
    cleaned = _clean_mapping(path, program)
    if not set(cleaned.get("verifiers", ())) <= _VERIFIERS:
        raise AdapterError(
            f"{path}: is a program of another dialect ({listed(cleaned['verifiers'])}); refused"
        )
    strange = [name for name in cleaned.get("range_constraints", ()) if not is_symbol(name)]
    if strange:
        raise AdapterError(f"{path}: {listed(strange)} is no name of a size; refused")
    for entry in cleaned["graph_module"]["module_call_graph"]:
        if entry.get("fqn"):
            entry["signature"] = None
    return cleaned


def _clean(path: Path, field: str, node: Any) -> Any:
    if isinstance(node, str):
        _check_text(path, field, node)
        return node
    if isinstance(node, dict):
        return _clean_mapping(path, node)
    if isinstance(node, list):
        if field == "as_ints" and _product(node) > _LARGEST_LIST:
            raise AdapterError(f"{path}: asks for tensors of more than {_LARGEST_LIST} numbers; refused")
        return [_clean(path, field, value) for value in node]
    return node


def _clean_mapping(path: Path, node: Mapping[str, Any]) -> dict[str, Any]:
    cleaned: dict[str, Any] = {}
    for key, value in node.items():
        if key in _REFUSED or (key == "custom_obj_values" and value):
            raise AdapterError(f"{path}: holds objects that are no tensors ({key}); refused")
        if not _WORD.fullmatch(key):
            raise AdapterError(f"{path}: {listed([key])!r} is no name; refused")
        cleaned[key] = type(value)() if key in _LEFT_OUT else _clean(path, key, value)
    return cleaned


def _check_text(path: Path, field: str, text: str) -> None:
    fits, problem = _RULES.get(field, (_is_word, "is no name"))
    if not fits(text):
        raise AdapterError(f"{path}: {field} {listed([text])!r} {problem}; refused")


def _is_word(text: str) -> bool:
    hidden = any(part.startswith("__") and part.endswith("__") for part in text.split("."))
    return _WORD.fullmatch(text) is not None and not hidden


def _is_variable(text: str) -> bool:
    return not text or (
        text.isidentifier() and text.isascii() and not keyword.iskeyword(text) and _is_word(text)
    )


def _product(sizes: list[Any]) -> int:
    return math.prod(abs(size) for size in sizes if isinstance(size, int) and abs(size) < 1 << 62)


_RULES: Mapping[str, tuple[Callable[[str], object], str]] = {
    "target": (is_operator, "is no operator that is known to be harmless"),
    "expr_str": (is_formula, "is no formula of sizes"),
    "in_spec": (is_tree, "is no nesting of tuples, lists and dicts"),
    "out_spec": (is_tree, "is no nesting of tuples, lists and dicts"),
    "as_string": (_PLAIN.fullmatch, "is no option of an operator"),
    "torch_version": (re.compile(r"[\w.+]{0,100}").fullmatch, "is no version"),
    **dict.fromkeys(_VARIABLES, (_is_variable, "is no name of a variable")),
}
