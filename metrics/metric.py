"""What a task's users judge a model by: one number, and what it is measured against."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass

from lampq.core.values.errors import RecordError
from lampq.metrics.case import Case

LABELS, TRUTH, REFERENCE, INPUTS = "labels", "truth", "reference", "inputs"
_MEANS = {
    LABELS: "labels",
    TRUTH: "what is right (--truth)",
    REFERENCE: "the float model (--reference)",
    INPUTS: "inputs",
}
_NAME = re.compile(r"[^\s]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A metric's value.

    Attributes:
        value: A finite number.
        notes: Remarks a reader should see.
    """

    value: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """A metric. Called with a `Case` it measures, and refuses what is no finite number.

    Attributes:
        name: What results and the command line call it.
        measure: From a case to its value, or a `Measured` where there is something to say.
        against: What it can be measured against, the best first: `labels`, `truth`, `reference`, `inputs`. The first
            of them that is known counts.
        higher_is_better: Whether a good model has a large value.
        whole: What a percentage of a drop is of; None: the float model's value. Rates of errors, which are 0 for a
            perfect model, have 1.
        final: Whether it is about the outputs of the file rather than those judged in place of them, which lie
            before the likes of NonMaxSuppression.
    """

    name: str
    measure: Callable[[Case], Measured | float]
    against: tuple[str, ...] = (TRUTH, LABELS, REFERENCE)
    higher_is_better: bool = True
    whole: float | None = None
    final: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RecordError(f"metric {self.name!r}: a name has no spaces")
        unknown = set(self.against) - set(_MEANS)
        if unknown or not self.against:
            raise RecordError(
                f"metric {self.name}: measured against {sorted(unknown)}, not {', '.join(_MEANS)}"
            )

    def source(self, case: Case) -> str:
        """What a case is measured against.

        Raises:
            RecordError: Nothing of it is known.
        """
        for source in self.against:
            if getattr(case, source) is not None:
                return source
        raise RecordError(f"metric {self.name} needs {' or '.join(_MEANS[name] for name in self.against)}")

    def __call__(self, case: Case) -> Measured:
        """The value of a case.

        Raises:
            RecordError: It is no finite number, or the case lacks what the metric needs.
        """
        self.source(case)
        result = self.measure(case)
        measured = result if isinstance(result, Measured) else None
        value = result if measured is None else measured.value
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise RecordError(f"metric {self.name} gives {value!r:.80}; a metric is one finite number")
        return Measured(value=float(value), notes=() if measured is None else measured.notes)
