"""The law of gradients: they say what small steps say."""

from __future__ import annotations

from lampq.core.measuring.reference import measure_reference
from lampq.core.measuring.traces import measure_traces
from lampq.core.readouts.draws import Draws
from lampq.core.values.fisher_kinds import FORWARD, TRUE
from lampq.testing.case import Case, require

# Both are estimates from random directions, and steps are not infinitely small.
_FACTOR = 3.0
# Traces below this share of the largest drown in the rounding of outputs.
_SMALLEST = 1e-3
_DRAWS = 24


def fisher_traces_agree_with_small_steps(case: Case) -> None:
    """Where there are gradients; where there are none, forward passes take their place and it is said why."""
    model = case.read()
    reference = measure_reference(model, case.batch)
    traces = measure_traces(model, reference, Draws(count=_DRAWS), kind=TRUE)
    if not case.gradients:
        require(
            traces.kind == FORWARD and bool(traces.note),
            "there are gradients, and the case says there are none",
        )
        return
    require(traces.kind == TRUE, f"there are no gradients: {traces.note}")
    steps = measure_traces(model, reference, Draws(count=_DRAWS), kind=FORWARD).weight
    require(
        set(traces.weight) == set(steps), f"traces are of {sorted(traces.weight)}, layers of {sorted(steps)}"
    )
    largest = max(steps.values())
    for name, expected in steps.items():
        if expected > _SMALLEST * largest:
            near = expected / _FACTOR <= traces.weight[name] <= expected * _FACTOR
            require(near, f"the trace of {name} is {traces.weight[name]:.3g}, by small steps {expected:.3g}")
