"""Progress on standard error: one line before long work, and bars where a person can see them and it takes a while."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from lampq.console.pace import Pace
from lampq.console.tables import unknown_terminal
from lampq.core.values.messages import printable
from lampq.core.values.progress import Progress as Report
from lampq.core.values.progress import quiet

_PATIENCE_S = 2.0
# Work that takes this long is announced, once its pace has been watched for a while.
_LONG_S, _WATCHED_S = 120.0, 2.0


@contextlib.contextmanager
def progress_bar(*, enabled: bool, tell: Callable[[str], None] | None = None) -> Iterator[Report]:
    """A progress report that turns into a bar after two seconds, in a terminal or a notebook.

    Args:
        enabled: Whether anything is shown.
        tell: Told of long work, once, before it is done: how long it will take, and the memory so far.
    """
    console = Console(stderr=True)
    moves = console.is_terminal and not console.is_dumb_terminal and not unknown_terminal()
    shown = moves or console.is_jupyter
    if not enabled or not (shown or tell):
        yield quiet
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[left]}", markup=False), console=console, transient=True,
    )  # fmt: skip
    report = _Reporter(bar, tell, shown=shown)
    try:
        yield report
    finally:
        report.stop()


class _Reporter:
    """Progress as bars and lines."""

    def __init__(self, bar: Progress, tell: Callable[[str], None] | None, *, shown: bool) -> None:
        self._bar, self._tell, self._shown = bar, tell, shown
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._told: set[str] = set()
        self._began = self._last = time.monotonic()
        self._started = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what not in self._paces:
            self._paces[what] = Pace(self._last)
        pace = self._paces[what]
        pace.report(now, done, total)
        self._last = now
        if self._tell is not None and what not in self._told:
            self._announce(self._tell, what, pace)
        if self._shown:
            self._show(what, done, total, pace.remaining_s, now)

    def stop(self) -> None:
        """Take the bars away."""
        if self._started:
            self._bar.stop()

    def _announce(self, tell: Callable[[str], None], what: str, pace: Pace) -> None:
        whole, left = pace.whole_s, pace.remaining_s
        if whole is None or left is None or whole < _LONG_S or whole - left < _WATCHED_S:
            return
        self._told.add(what)
        tell(f"{what}: about {duration(whole)} in all{_memory()}")

    def _show(self, what: str, done: int, total: int, left: float | None, now: float) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(printable(what), total=total, left="")
        text = "" if left is None else f"{duration(left)} left"
        self._bar.update(self._tasks[what], completed=done, total=total, left=text)
        if not self._started and now - self._began > _PATIENCE_S:
            self._bar.start()
            self._started = True


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(42.4), duration(100), duration(4000)
    ('42 s', '1 min 40 s', '1 h 7 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes} min"


def _memory() -> str:
    """The most memory that the process has taken, as the end of a line; empty where the system does not tell."""
    try:
        import resource
    except ImportError:
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f", {peak / 1e9:.1f} GB of memory so far"
