"""The one thing that planning does not do itself."""

from __future__ import annotations

from typing import Protocol

from lampq.core.values.problem import Problem
from lampq.core.values.solution import Solution


class Solve(Protocol):
    """A front door of solvers, such as `lampq.solvers.solve`: its answers are certified."""

    def __call__(
        self, problem: Problem, *, solver: str = "auto", time_limit_s: float | None = None
    ) -> Solution:
        """The choice of least damage within the problem's limits, or a solution without one."""
