"""Progress bars on standard error, shown only where a person can see them and the work takes a while."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lampq.console.tables import unknown_terminal
from lampq.core.values.messages import printable
from lampq.core.values.progress import Progress as Report
from lampq.core.values.progress import quiet

_PATIENCE_S = 2.0


@contextlib.contextmanager
def progress_bar(*, enabled: bool) -> Iterator[Report]:
    """A progress report that turns into a bar after two seconds, in a terminal or a notebook; elsewhere silent."""
    console = Console(stderr=True)
    moves = console.is_terminal and not console.is_dumb_terminal and not unknown_terminal()
    if not enabled or not (moves or console.is_jupyter):
        yield quiet
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}
    began = time.monotonic()
    started = False

    def report(what: str, done: int, total: int) -> None:
        nonlocal started
        if what not in tasks:
            tasks[what] = bar.add_task(printable(what), total=total)
        bar.update(tasks[what], completed=done, total=total)
        if not started and time.monotonic() - began > _PATIENCE_S:
            bar.start()
            started = True

    try:
        yield report
    finally:
        if started:
            bar.stop()
