"""Cells of tables that a spreadsheet shows and does not run.

Spreadsheets take cells that begin with certain characters for formulas, which can start programs and send data away.
A quote mark in front makes them text (OWASP, "CSV Injection"). It is told apart from one that belongs to the name:
names that look as if they had been quoted get one more.
"""

from __future__ import annotations

# The first characters of formulas, their full-width forms included; a cell that begins with blanks is trimmed by some.
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTE = "'"


def quoted(cell: str) -> str:
    """A text as a cell that is no formula.

    >>> quoted("=1+1"), quoted("blocks.0.fc1")
    ("'=1+1", 'blocks.0.fc1')
    """
    return _QUOTE + cell if _is_formula(cell.lstrip(_QUOTE)) else cell


def unquoted(cell: str) -> str:
    """The text that `quoted` made a cell of.

    >>> unquoted(quoted("=1+1"))
    '=1+1'
    """
    return cell[1:] if cell.startswith(_QUOTE) and _is_formula(cell.lstrip(_QUOTE)) else cell


def _is_formula(text: str) -> bool:
    return text.lstrip(" ").startswith(_STARTS)
