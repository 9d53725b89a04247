"""Whether a budget can be met, found out before anything is measured."""

from __future__ import annotations

import dataclasses

import numpy as np

from lampq import solvers
from lampq.core.allocating.scores import score
from lampq.core.measuring.measure import measure_activations
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.measuring.reference import input_batch
from lampq.core.planning.feasible import feasible_problem
from lampq.core.values.batch import BatchLike
from lampq.core.values.measurement import Measurement
from lampq.core.values.overhead import Overhead
from lampq.core.values.profile import Profile
from lampq.core.values.request import Request
from lampq.core.values.score import AUTO
from lampq.core.values.site_kinds import ALL
from lampq.core.values.tables import known_tables
from lampq.verbs.overhead import file_overhead
from lampq.verbs.profile import quantizable, stored_bytes


def check_budget(model: Model, batch: BatchLike, request: Request, measurement: Measurement) -> None:
    """Refuse a budget that no plan of a model can meet, from sizes alone.

    All limits but a largest KL need only what layers weigh and store. Where multiply-accumulates or the sizes of
    layer inputs count, one sample is run.

    Args:
        model: The float model.
        batch: Calibration inputs, samples first.
        request: Limits, pins and ties.
        measurement: What is to be measured.

    Raises:
        BudgetError: The limits cannot be met; names those that clash and the nearest feasible values.
        PlanError: A pattern matches nothing, or pins a width that is not to be measured.
    """
    profile = _outline(model, batch, request, measurement)
    # Which score `auto` stands for is known once there is a profile; none that it may brings pins along.
    pins = () if request.mode == AUTO else score(request.mode).default_pins(profile)
    feasible_problem(profile, profile.weight_error, request, solvers.solve, default_pins=pins)


def _outline(model: Model, batch: BatchLike, request: Request, measurement: Measurement) -> Profile:
    """A profile of sizes alone: as if no layer lost anything."""
    model = model.with_coding(dataclasses.replace(model.coding, block=measurement.block))
    layers, kept = quantizable(model, measurement.selection)
    options, budget = measurement.options, request.limits
    samples = 0
    if not (budget.max_bops is budget.max_activation_bytes is budget.average_input_bits is None):
        layers, samples = measure_activations(model, layers, input_batch(model, batch).take([0])), 1
    payload = stored_bytes(model, layers, options, measurement.container)
    # A graph for every width is built for it, and only limits on the whole file count what is beside the payload.
    sized = budget.size_bytes is not None
    overhead = file_overhead(model, layers, kept, measurement) if sized else Overhead(rest_bytes=0)
    products = model.products() if measurement.sites == ALL and rounds_activations(model) else ()
    if products:
        payload = np.pad(payload, ((0, len(products)), (0, 0)))
        overhead = overhead.with_places(np.zeros(payload.shape, dtype=np.int64))
    return Profile(
        layers=layers,
        options=options,
        tables=known_tables(weight_error=np.zeros(payload.shape), payload_bytes=payload, **overhead.tables()),
        rest_bytes=overhead.rest_bytes,
        container=measurement.container,
        products=products,
        samples=samples,
    )
