"""Formulas of sizes in exported programs, which sympy evaluates as Python."""

from __future__ import annotations

import ast
import re

_LONGEST, _MOST_POWERS, _LARGEST_POWER = 2000, 4, 4
_SYMBOL = re.compile(r"[suzf]{1,3}\d{1,6}")
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{0,20})?(?:e[+-]?\d{1,3})?")
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
_FUNCTIONS = _POWERS | frozenset(
    """
    Symbol Integer Float Rational Mul Add Mod Max Min Abs Eq Ne Equality Unequality Le Lt Ge Gt And Or Not
    LessThan GreaterThan StrictLessThan StrictGreaterThan FloorDiv CeilDiv CleanDiv ModularIndexing PythonMod
    IntTrueDiv FloatTrueDiv FloorToInt CeilToInt TruncToInt TruncToFloat RoundToInt ToFloat Where Piecewise
    ExprCondPair IsNonOverlappingAndDenseIndicator floor ceiling
    """.split()  # noqa: SIM905
)
_WORDS = frozenset({"BooleanTrue", "BooleanFalse", "true", "false", "int_oo", "oo"})
_ASSUMPTIONS = frozenset(
    {"positive", "nonnegative", "negative", "integer", "real", "zero", "finite", "evaluate", "precision"}
)
_OPERATIONS = (
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr),
    *(ast.USub, ast.UAdd, ast.Invert, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)


def is_formula(text: str) -> bool:
    """Whether a text is arithmetic on sizes and nothing else, and small.

    Sympy runs it as Python code: no attribute, no name but its functions, no power that would not end.

    >>> is_formula("2*s0 + 1"), is_formula("s0.__class__"), is_formula("9**9**9")
    (True, False, False)
    """
    if len(text) > _LONGEST:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    powers = sum(_is_power(node) for node in ast.walk(tree))
    return powers <= _MOST_POWERS and _is_arithmetic(tree.body)


def is_symbol(text: str) -> bool:
    """Whether a text is the name of an unknown size.

    >>> is_symbol("s0"), is_symbol("os")
    (True, False)
    """
    return _SYMBOL.fullmatch(text) is not None


def _is_power(node: ast.AST) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _POWERS
    return called or isinstance(node, ast.Pow)


def _is_arithmetic(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return _is_number(node.value)
    if isinstance(node, ast.Name):
        return is_symbol(node.id) or node.id in _WORDS
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _is_small(node.right) and _is_arithmetic(node.left)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, _OPERATIONS) and _is_arithmetic(node.left) and _is_arithmetic(node.right)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, _OPERATIONS) and _is_arithmetic(node.operand)
    if isinstance(node, ast.Compare):
        operations = all(isinstance(op, _OPERATIONS) for op in node.ops)
        return operations and all(map(_is_arithmetic, (node.left, *node.comparators)))
    if isinstance(node, ast.Tuple):
        return all(map(_is_arithmetic, node.elts))
    return isinstance(node, ast.Call) and _is_call(node)


def _is_call(node: ast.Call) -> bool:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in _FUNCTIONS or not all(_is_assumption(keyword) for keyword in node.keywords):
        return False
    if name in ("Symbol", "Float") and node.args and isinstance(node.args[0], ast.Constant):
        text, fits = node.args[0].value, is_symbol if name == "Symbol" else _NUMBER.fullmatch
        return isinstance(text, str) and bool(fits(text)) and len(node.args) == 1
    if name in _POWERS and not (len(node.args) == 2 and _is_small(node.args[1])):
        return False
    return all(map(_is_arithmetic, node.args))


def _is_assumption(keyword: ast.keyword) -> bool:
    value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
    return keyword.arg in _ASSUMPTIONS and isinstance(value, int) and 0 <= value <= 64


def _is_number(value: object) -> bool:
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64)


def _is_small(node: ast.expr) -> bool:
    """Whether an exponent is a whole number from -4 to 4."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _is_small(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer":
        return len(node.args) == 1 and not node.keywords and _is_small(node.args[0])
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value <= _LARGEST_POWER
