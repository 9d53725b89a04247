"""Whether a budget can be met, found out before anything is measured."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lampq import solvers
from lampq.core.allocating.allocation import build_problem
from lampq.core.allocating.clash import refuse_clash
from lampq.core.allocating.limits import Budget
from lampq.core.measuring.measure import measure_activations
from lampq.core.measuring.model import Model
from lampq.core.measuring.reference import input_batch
from lampq.core.values.batch import BatchLike
from lampq.core.values.option import all_options
from lampq.core.values.profile import Profile
from lampq.core.values.tables import known_tables
from lampq.verbs.plan import CLASH_LIMIT_S, default_pins
from lampq.verbs.profile import quantizable, stored_bytes


def check_budget(
    model: Model,
    batch: BatchLike,
    budget: Budget,
    *,
    bits: Sequence[int] = tuple(range(2, 9)),
    act_bits: int | Sequence[int] | None = None,
    container: str = "bitplane",
    block: int | None = None,
    mode: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    **_: Any,
) -> None:
    """Refuse a budget that no plan of a model can meet, from sizes alone.

    All limits but a largest KL need only what layers weigh and store. Where multiply-accumulates or the sizes of
    layer inputs count, one sample is run.

    Args:
        model: The float model.
        batch: Calibration inputs, samples first.
        budget: Limits.
        bits: Weight widths to be measured, as for `lampq.profile`.
        act_bits: See `lampq.profile`.
        container: See `lampq.profile`.
        block: See `lampq.profile`.
        mode: Score; mode lampq pins two kinds of layers.
        pins: See `lampq.plan`.
        ties: See `lampq.plan`.

    Raises:
        BudgetError: The limits cannot be met; names those that clash and the nearest feasible values.
        PlanError: A pattern matches nothing, or pins a width that is not to be measured.
    """
    options = all_options(bits, act_bits)
    model = model.with_coding(dataclasses.replace(model.coding, block=block))
    layers = quantizable(model)
    samples = 0
    if not (budget.max_bops is budget.max_activation_bytes is budget.average_input_bits is None):
        layers, samples = measure_activations(model, layers, input_batch(model, batch).take([0])), 1
    payload = stored_bytes(model, layers, options, container)
    outline = Profile(
        layers=layers,
        options=options,
        tables=known_tables(weight_error=np.zeros(payload.shape), payload_bytes=payload),
        rest_bytes=model.rest_bytes(activations=act_bits is not None),
        container=container,
        samples=samples,
    )
    pins = (*default_pins(outline, mode), *pins)
    problem = build_problem(outline, outline.weight_error, budget, pins=pins, ties=ties)
    refuse_clash(outline, budget, problem, functools.partial(solvers.solve, time_limit_s=CLASH_LIMIT_S))
