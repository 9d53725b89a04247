"""How long work is done, which changes nothing of what it gives: who is told, what is kept, and who does it."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from typing import Any

from lampq.core.values.choices import refuse_unknown
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.progress import Progress, quiet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """How long work is done.

    Attributes:
        progress: Told what is being done and how far it is.
        journal: Keeps what is finished, so that the same work goes on after a kill.
        executor: Workers that share a profile's samples; any `concurrent.futures.Executor` whose workers can read the
            model's file.
        parts: In how many parts; None takes as many as there are workers.
    """

    progress: Progress = quiet
    journal: Journal = NOWHERE
    executor: Executor | None = None
    parts: int | None = None

    @classmethod
    def of(cls, work: Work | None = None, **choices: Any) -> Work:
        """The same with further choices, each by the name of a field.

        Args:
            work: What to begin with.
            **choices: Fields to set.

        Raises:
            RecordError: A name is unknown.
        """
        refuse_unknown(choices, cls.names(), "work")
        return replace(work or cls(), **choices)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names that `of` knows."""
        return tuple(entry.name for entry in fields(cls))
