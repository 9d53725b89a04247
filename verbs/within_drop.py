"""The smallest plan whose measured metric stays within a drop, from one profile."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lampq import solvers
from lampq.core.allocating.limits import BYTES
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.measuring.setting import Setting, plan_rule, rounded_weight, site_settings
from lampq.core.planning.search import Search
from lampq.core.planning.smallest_kept import smallest_kept
from lampq.core.values import staging
from lampq.core.values.batch import Batch
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.plan import Plan
from lampq.core.values.plan_layer import PlanLayer
from lampq.core.values.profile import Profile
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.request import Request
from lampq.core.values.solution import Solution, Status, Stop
from lampq.metrics.drop import Drop
from lampq.verbs.apply import apply
from lampq.verbs.formats import read_written
from lampq.verbs.task import Answers, MetricValue, Task, measured


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guard:
    """What a plan must keep.

    Attributes:
        drop: How far the metric may fall.
        task: One metric, and what it is measured against.
        inputs: Samples that it is measured on.
    """

    drop: Drop
    task: Task
    inputs: Batch

    def __post_init__(self) -> None:
        if len(self.task.metrics) != 1:
            raise RecordError(f"a largest drop needs one metric, not {len(self.task.metrics)}")
        self.task.check(self.inputs.samples)


def plan_within_drop(
    model: Model,
    profile: Profile,
    batch: Batch,
    request: Request,
    guard: Guard,
    out: Path,
    *,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> Plan:
    """The smallest plan in bytes whose metric stays within a drop, among those that no other beats by prediction.

    Args:
        model: The float model, its weights rounded as the profile says.
        profile: Its profile.
        batch: Calibration inputs.
        request: Limits that hold besides, pins, ties and score.
        guard: What must be kept.
        out: What the plan is for; where inputs are rounded by a written file alone, candidates are written like it.
        journal: Keeps the metric of every plan.
        progress: Told what is being done.

    Raises:
        BudgetError: Not even the widest plan keeps it.
        RecordError: The metric cannot be measured.
    """
    search = Search.of(profile, request, solvers.solve)
    (metric,) = guard.task.metrics
    own = Answers(model=model, inputs=guard.inputs, outputs=model.run(guard.inputs))
    (float_value,) = (value.value for value in measured(guard.task, own, own))
    values: dict[bytes, MetricValue] = {}
    reached: list[float] = []
    run = _runner(model, batch, out)

    def value_of(choice: np.ndarray) -> MetricValue:
        key = choice.tobytes()
        if key not in values:
            (values[key],) = measured(guard.task, run(_plan(search, choice), guard.inputs), own)
        return values[key]

    def keeps(choice: np.ndarray) -> bool:
        name = f"metric {' '.join(map(str, choice.tolist()))}"
        reached.append(float(journal.array(name, (), lambda: value_of(choice).value)))
        return guard.drop.keeps(metric, reached[-1], float_value)

    try:
        smallest = smallest_kept(search, keeps, progress=progress)
    except BudgetError as err:
        worst = guard.drop.worst(metric, float_value)
        # The widest plan is measured first.
        best = f"; it reaches {reached[0]:.5g}" if reached else ""
        raise BudgetError(
            f"{metric.name} {float_value:.5g} of the float model may get {worst:.5g} at worst ({guard.drop}): "
            f"{err}{best}"
        ) from err
    value = value_of(smallest.choice)
    plan = _plan(search, smallest.choice)
    note = (
        f"{metric.name} {value.value:.5g}, of the float model {float_value:.5g}, on {guard.inputs.samples} samples, "
        f"against the {value.against}: the smallest of {smallest.measured} plans measured, of {smallest.curve} on the "
        f"curve, that stays within {guard.drop}"
    )
    return dataclasses.replace(plan, notes=(*plan.notes, note, *value.notes))


def _plan(search: Search, choice: np.ndarray) -> Plan:
    """The plan of a choice, as if its own size had been asked for."""
    size = search.profile.total_bytes(choice)
    limits = dataclasses.replace(search.request.limits, size_bytes=size, average_bits=None, max_kl=None)
    stored = np.where(np.isfinite(search.problem.cost), search.profile.stored_bytes, 0)
    used_bytes = int(stored[np.arange(len(choice)), choice].sum())
    asked = dataclasses.replace(
        search,
        request=dataclasses.replace(search.request, budget=limits),
        problem=dataclasses.replace(
            search.problem,
            resources=stored[None],
            limits=np.array([used_bytes], dtype=np.int64),
            resource_names=(BYTES,),
        ),
    )
    solution = Solution(
        status=Status.FEASIBLE,
        stop=Stop.FINISHED,
        choice=choice,
        objective=search.predict(choice),
        bound=-np.inf,
        seconds=0.0,
        solver="curve",
    )
    return asked.plan(solution)


def _runner(model: Model, batch: Batch, out: Path) -> Callable[[Plan, Batch], Answers]:
    """What a plan makes of some inputs: in float arithmetic, or by a file where that alone rounds inputs."""
    layers = {layer.name: layer for layer in model.layers()}
    # Plans measured one after the other have most widths in common.
    last: dict[str, tuple[tuple[int, int], np.ndarray]] = {}

    def weight(decision: PlanLayer) -> np.ndarray:
        name, weights = decision.name, decision.option.weights
        if name not in last or last[name][0] != weights:
            last[name] = weights, rounded_weight(model, layers[name], *weights)
        return last[name][1]

    def run(plan: Plan, inputs: Batch) -> Answers:
        if rounds_activations(model):
            settings = {d.name: Setting(weight=weight(d), activation=plan_rule(d)) for d in plan.layers}
            quantized: Model = model.with_weights(settings | site_settings(plan))
        elif any(decision.activation_bits is not None for decision in plan.layers):
            return _written(model, plan, batch, inputs, out)
        else:
            quantized = model.with_weights({decision.name: weight(decision) for decision in plan.layers})
        return Answers(model=quantized, inputs=inputs, outputs=quantized.run(inputs))

    return run


def _written(model: Model, plan: Plan, batch: Batch, inputs: Batch, out: Path) -> Answers:
    """What the file of a plan makes of some inputs."""
    with staging.temporary(Path(tempfile.gettempdir()), directory=True) as folder:
        path = folder / out.name
        apply(model.with_coding(model.coding.anew()), plan, path, batch=batch)
        written = read_written(model, path)
        return Answers(model=written, inputs=inputs, outputs=written.run(inputs))
