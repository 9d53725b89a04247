"""How long work at hand will take, from how far it has come."""

from __future__ import annotations

from collections import deque


class Pace:
    """The pace of one piece of work. Steps that a resumed run remembers take no time: only the latest count.

    Args:
        began_s: When it began.
    """

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._reports: deque[tuple[float, int]] = deque()
        self._total = 0

    def report(self, now_s: float, done: int, total: int) -> None:
        """Take in how far it is."""
        if total != self._total or (self._reports and done < self._reports[-1][1]):
            # Other work of the same name.
            self._began_s = self._reports[-1][0] if self._reports else self._began_s
            self._reports.clear()
            self._total = total
        self._reports.append((now_s, done))
        # The later half of the time tells best: what is made once lies before it.
        while len(self._reports) > 2 and now_s - self._reports[1][0] > (now_s - self._began_s) / 2:
            self._reports.popleft()

    @property
    def remaining_s(self) -> float | None:
        """Seconds that are left, or None before that can be told: two reports."""
        if len(self._reports) < 2:
            return None
        (first_s, first), (last_s, last) = self._reports[0], self._reports[-1]
        if last <= first:
            return None
        return (last_s - first_s) / (last - first) * (self._total - last)

    @property
    def whole_s(self) -> float | None:
        """Seconds from its beginning to its end, or None before that can be told."""
        left = self.remaining_s
        return None if left is None else self._reports[-1][0] - self._began_s + left
