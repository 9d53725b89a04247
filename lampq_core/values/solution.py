"""What a solver answers. What is known of the problem and why the solver stopped are two facts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from lampq.core.values.errors import SolverError

PROOF_TOLERANCE = 1e-9
"""A choice counts as optimal when its objective exceeds a certified bound by at most this fraction."""


class Status(Enum):
    """What is known of the problem. The first two come with a choice; UNKNOWN means that none was found."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


class Stop(Enum):
    """Why the solver stopped: done, out of time, at the end of the work it allows itself, or failed."""

    FINISHED = "finished"
    TIME_LIMIT = "time limit"
    WORK_LIMIT = "work limit"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """A solver's answer.

    Attributes:
        status: OPTIMAL and FEASIBLE have a choice, the others have none.
        stop: Why the solver stopped.
        choice: Option index per layer, shape (L,), int64, or None.
        objective: Damage of the choice in nats; +inf without one.
        bound: No choice has a smaller damage than this, nats; +inf where the problem is infeasible.
        seconds: Wall time.
        solver: Name of the solver.
    """

    status: Status
    stop: Stop
    choice: np.ndarray | None
    objective: float
    bound: float
    seconds: float
    solver: str

    def __post_init__(self) -> None:
        has_point = self.status in (Status.OPTIMAL, Status.FEASIBLE)
        if has_point != (self.choice is not None):
            raise SolverError(f"{self.solver}: status {self.status.value} contradicts its choice")
        if math.isnan(self.objective) or math.isnan(self.bound):
            raise SolverError(f"{self.solver}: objective {self.objective} or bound {self.bound} is no number")
        if self.choice is not None:
            choice = np.array(self.choice)
            if choice.ndim != 1 or choice.dtype.kind not in "iu":
                raise SolverError(f"{self.solver}: the choice is no vector of integers")
            choice = choice.astype(np.int64)
            choice.setflags(write=False)
            object.__setattr__(self, "choice", choice)

    @property
    def chosen(self) -> np.ndarray:
        """The choice of a solution that must have one.

        Raises:
            SolverError: It has none.
        """
        if self.choice is None:
            raise SolverError(f"{self.solver}: no choice was found ({self.status.value})")
        return self.choice

    @property
    def gap(self) -> float:
        """How far the choice may be from the optimum, as a fraction of its damage; +inf without a choice.

        >>> Solution(status=Status.FEASIBLE, stop=Stop.TIME_LIMIT, choice=np.array([0]), objective=2.0,
        ...          bound=1.5, seconds=0.0, solver="exact").gap
        0.25
        """
        if self.choice is None:
            return math.inf
        difference = max(0.0, self.objective - self.bound)
        return difference / self.objective if difference else 0.0
