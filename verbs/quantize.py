"""Model, data and budget in, quantized model out: profile, plan and apply in one, checked by measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lampq.core.allocation import Budget, build_plan, build_problem, uniform_choice
from lampq.core.files import refuse_existing
from lampq.core.measure import Progress, measure_plan, quiet
from lampq.core.model import Model
from lampq.core.plan import Plan
from lampq.core.profile import Profile
from lampq.core.scores import predicted_damage
from lampq.verbs.apply import apply
from lampq.verbs.plan import plan as make_plan
from lampq.verbs.profile import profile as make_profile


def quantize(
    model: Model,
    batch: np.ndarray,
    out: str | Path,
    *,
    average_bits: float | None = None,
    size_bytes: int | None = None,
    max_kl: float | None = None,
    mode: str = "auto",
    solver: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    time_limit_s: float | None = None,
    rounds: int = 2,
    force: bool = False,
    progress: Progress = quiet,
    **measurement: Any,
) -> Plan:
    """Write the least damaged model that fits a budget.

    The plan is measured on the calibration data before it is written; where the best uniform plan of the budget
    turns out better, that one is taken.

    Args:
        model: The float model.
        batch: Calibration inputs, preprocessed, samples first.
        out: File to write.
        average_bits: See `lampq.plan`, as the other search arguments.
        size_bytes: See `lampq.plan`.
        max_kl: See `lampq.plan`.
        mode: See `lampq.plan`.
        solver: See `lampq.plan`.
        pins: See `lampq.plan`.
        ties: See `lampq.plan`.
        time_limit_s: See `lampq.plan`.
        rounds: Rounds of measuring around the plan; 0 leaves the plan as the profile gives it.
        force: Overwrite `out`.
        progress: Told what is being done and how far it is.
        **measurement: Passed on to `lampq.profile`.

    Returns:
        The plan that was written, with its measured damage.

    Raises:
        LampqError: Any step's bad input; nothing is written then.
    """
    out = Path(out)
    refuse_existing(out, force=force)
    found = make_profile(model, batch, progress=progress, **measurement)
    chosen = make_plan(
        found,
        average_bits=average_bits,
        size_bytes=size_bytes,
        max_kl=max_kl,
        mode=mode,
        solver=solver,
        pins=pins,
        ties=ties,
        time_limit_s=time_limit_s,
    )
    chosen = _checked(model, found, chosen, batch, pins, ties)
    apply(model, chosen, out, force=force)
    return chosen


def _checked(
    model: Model, profile: Profile, plan: Plan, batch: np.ndarray, pins: Sequence[str], ties: Sequence[str]
) -> Plan:
    """The plan with its measured damage, or the best uniform plan of the budget if that measures less."""
    measured = measure_plan(model, plan.widths, batch, profile.logits)
    plan = dataclasses.replace(plan, measured_kl=measured)
    limits = {key: value for key, value in plan.budget.items() if key in ("average_bits", "size_bytes")}
    cost, _ = predicted_damage(profile, "kl")
    problem = build_problem(profile, cost, Budget(**limits), pins=pins, ties=ties)
    choice = uniform_choice(profile, problem)
    if choice is None:
        return plan
    uniform = build_plan(
        profile,
        choice,
        mode="uniform",
        budget=plan.budget,
        cost=cost,
        predicted_kl=problem.objective(choice),
        history=plan.history,
        notes=(f"the plan of mode {plan.mode} measured {measured:.4g} nats, more than this uniform one",),
    )
    uniform_kl = measure_plan(model, uniform.widths, batch, profile.logits)
    if uniform_kl < measured:
        return dataclasses.replace(uniform, measured_kl=uniform_kl)
    note = f"best uniform plan of the budget measured {uniform_kl:.4g} nats"
    return dataclasses.replace(plan, notes=(*plan.notes, note))
