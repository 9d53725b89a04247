"""Lists and tables that read well at any width of the terminal; on standard error, standard output is for scripts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from lampq.core.values.messages import printable

# Characters of a line where nobody watches (a log, a pipe) and the environment does not say.
_LOG_WIDTH = 160
# Narrower terminals break the lines themselves: nothing could be read of a table that fits.
_LEAST_WIDTH = 24
# Of a digest, enough for people to tell files apart; JSON has all of it.
_DIGEST_SHOWN = 12
_DIGEST = re.compile(r"[0-9a-f]{64}")
# The least width worth giving to a column of text before columns move to a further table.
_LEAST_TEXT = 16
# Words of headings do not break, unless they are as long as paths are.
_MOST_HEADING = 24
# Between two columns: a line and a space on either side; one line more closes the table.
_RULE, _EDGE = 3, 1
# Between a fact and its name.
_GAP = 2


def console() -> Console:
    """Standard error, as wide as the terminal."""
    system: Literal["auto"] | None = None if unknown_terminal() else "auto"
    terminal = Console(stderr=True, highlight=False, color_system=system)
    if terminal.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        terminal.width = max(terminal.width, _LEAST_WIDTH)
        return terminal
    return Console(stderr=True, highlight=False, width=_LOG_WIDTH)


def unknown_terminal() -> bool:
    """Whether nobody says what the terminal can do; colours and movements of the cursor may then be garbage."""
    return os.name == "posix" and not os.environ.get("TERM")


def facts(title: str, values: Mapping[str, Any]) -> None:
    """A short two-column list; what is empty is left out, and a group of facts takes a line each."""
    out = console()
    if title:
        # As the title of a table it would fold to the width of that.
        out.print(f"[italic]{_shown(title)}[/italic]")
    rows = [(_shown(name), _shown(_shortened(text(value)))) for name, value in _listed(values)]
    longest = max((len(name) for name, _ in rows), default=0)
    # Reasons are names too, and as long as sentences.
    lead = min(longest, max(_LEAST_TEXT, out.width * 9 // 20))
    if lead + _GAP + _LEAST_TEXT > out.width:
        # Beside their names they would vanish.
        for name, value in rows:
            out.print(f"{name}:", Padding(value, (0, 0, 0, _GAP)), sep="\n")
        return
    grid = Table(show_header=False, box=None, padding=(0, _GAP, 0, 0))
    grid.add_column(overflow="fold", max_width=lead)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    out.print(grid)


def _listed(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        inner = (
            {f"{name}: {key}": value[key] for key in value} if isinstance(value, Mapping) else {name: value}
        )
        yield from ((key, item) for key, item in inner.items() if not _empty(item))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table, numbers to the right. Columns that do not fit follow in further tables that repeat the first one."""
    out = console()
    cells = [[text(value) for value in row] for row in rows]
    numeric = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(columns))]
    needs = []
    for index, column in enumerate(columns):
        heading = min(max(map(len, column.split()), default=0), _MOST_HEADING)
        content = max((len(row[index]) for row in cells), default=0)
        # Numbers never break. Names come first, and long text folds into few lines.
        folded = out.width * 3 // 10 if index == 0 else min(content // 3, out.width // 2)
        most = content if numeric[index] else max(_LEAST_TEXT, folded)
        needs.append(_Need(least=max(heading, min(content, most)), whole=max(len(column), content)))
    for part, group in enumerate(_groups(needs, out.width)):
        grid = Table(title=_shown(title) if part == 0 else None, title_justify="left")
        for index, width in _shared(needs, group, out.width).items():
            grid.add_column(
                _shown(columns[index]),
                justify="right" if numeric[index] else "left",
                overflow="fold",
                width=width,
            )
        for row in cells:
            grid.add_row(*(_shown(row[index]) for index in group))
        out.print(grid)


class _Need(NamedTuple):
    """Characters of a column: below `least` it cannot be read, above `whole` it gains nothing."""

    least: int
    whole: int


def _groups(needs: Sequence[_Need], width: int) -> list[list[int]]:
    """Columns of each table, in order: the first column, and as many others as fit beside it."""
    groups: list[list[int]] = [[0]]
    for index in range(1, len(needs)):
        if _spare(needs, [*groups[-1], index], width) < 0 and len(groups[-1]) > 1:
            groups.append([0])
        groups[-1].append(index)
    return groups


def _shared(needs: Sequence[_Need], group: Sequence[int], width: int) -> dict[int, int]:
    """Column -> its characters; what is to spare goes to those that lack least first."""
    spare = max(0, _spare(needs, group, width))
    widths = {index: needs[index].least for index in group}
    for index in sorted(group, key=lambda index: needs[index].whole - needs[index].least):
        more = min(spare, needs[index].whole - needs[index].least)
        widths[index] += more
        spare -= more
    return widths


def _spare(needs: Sequence[_Need], group: Sequence[int], width: int) -> int:
    return width - _EDGE - sum(needs[index].least + _RULE for index in group)


def _shown(text: str) -> str:
    """A text out of a file as it may reach a terminal: neither its own escape sequences nor rich's marks count."""
    return escape(printable(text))


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not value)


def _shortened(line: str) -> str:
    return _DIGEST.sub(lambda digest: digest.group()[:_DIGEST_SHOWN] + "...", line)


def text(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {text(v)}" for k, v in value.items() if not _empty(v))
    if isinstance(value, list | tuple):
        return "; ".join(text(v) for v in value)
    return str(value)
