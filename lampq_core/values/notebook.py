"""Records as small HTML tables, for notebooks: they call `_repr_html_` of what a cell ends with."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from lampq.core.values.messages import printable

_MOST_ROWS = 30


def html_table(
    title: str, facts: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> str:
    """A title with its facts, and a table of at most 30 rows, the last of them counting the others.

    What is None is left out of the facts and a dash in the table; all text is escaped.

    >>> html_table("plan", {"bits": 3.0, "bound": None}, ("layer",), [("a<b",)])
    '<p><b>plan</b>: bits 3</p><table><thead><tr><th>layer<tbody><tr><td>a&lt;b</table>'
    """
    said = ", ".join(f"{_text(name)} {_text(value)}" for name, value in facts.items() if value is not None)
    head = f"<p><b>{_text(title)}</b>{': ' if said else ''}{said}</p>"
    if not rows:
        return head
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}" for cell in row) for row in rows[:_MOST_ROWS])
    if len(rows) > _MOST_ROWS:
        body += f"<tr><td colspan={len(columns)}>and {len(rows) - _MOST_ROWS:,} more"
    names = "".join(f"<th>{_text(column)}" for column in columns)
    return f"{head}<table><thead><tr>{names}<tbody>{body}</table>"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return html.escape(printable(f"{value:,}" if isinstance(value, int) else str(value)))
