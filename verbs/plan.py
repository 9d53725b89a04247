"""Profile in, plan out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lampq import solvers
from lampq.core.allocation import Budget, build_plan, build_problem, uniform_choice
from lampq.core.errors import BudgetError
from lampq.core.pareto import pareto
from lampq.core.plan import Plan
from lampq.core.profile import Profile
from lampq.core.scores import automatic_mode, predicted_damage
from lampq.core.solution import Solution

# The paper leaves these two kinds out of the search.
_LAMPQ_PINS = ("patch_embed", "head")


def plan(
    profile: Profile,
    *,
    average_bits: float | None = None,
    size_bytes: int | None = None,
    max_kl: float | None = None,
    mode: str = "auto",
    solver: str = "auto",
    pins: Sequence[str] = (),
    ties: Sequence[str] = (),
    time_limit_s: float | None = None,
) -> Plan:
    """Choose the width of every layer so that the predicted damage is least and every limit holds.

    Args:
        profile: Measurements of the model.
        average_bits: Most bits per weight on average over all layers.
        size_bytes: Most bytes of the whole model.
        max_kl: Instead of a budget: the smallest plan whose predicted damage is at most this many nats.
        mode: `lampq`, `fisher`, `kl`, `error`, or `auto`: the best that the profile allows.
        solver: `exact`, `scipy`, `cbc` or `auto`.
        pins: Fixed widths, `PATTERN=BITS`. Mode lampq pins patch_embed and head to 8 bits unless told otherwise.
        ties: Patterns of layers that take one width together.
        time_limit_s: Most seconds for the solver.

    Raises:
        BudgetError: No plan fits the budget; names the floor.
        PlanError: A pattern matches nothing.
        RecordError: The profile lacks what the mode needs.
    """
    if mode == "auto":
        mode = automatic_mode(profile)
    cost, repaired = predicted_damage(profile, mode)
    pins = (*_default_pins(profile, mode), *pins)
    notes = [
        f"damage of {name} did not fall with every bit; its running minimum was used" for name in repaired
    ]
    if max_kl is not None:
        budget = _smallest_budget(profile, cost, max_kl, mode, pins, ties, average_bits, size_bytes)
    else:
        budget = Budget(average_bits=average_bits, size_bytes=size_bytes)
    problem = build_problem(profile, cost, budget, pins=pins, ties=ties)
    solution = solvers.solve(problem, solver=solver, time_limit_s=time_limit_s)
    _require_choice(solution)
    uniform = uniform_choice(profile, problem)
    if uniform is not None and mode != "error":
        damage = problem.objective(uniform)
        bits = profile.weight_bits[int(np.bincount(uniform).argmax())]
        notes.append(f"uniform {bits} bits within the same limits: predicted {damage:.4g} nats")
    if mode == "error":
        notes.append(
            "made without data: relative weight error stands in for damage, which it predicts poorly"
        )
    return build_plan(
        profile,
        solution.choice,
        mode=mode,
        budget={**budget.to_json(), **({"max_kl": max_kl} if max_kl is not None else {})},
        cost=None if mode == "error" else cost,
        predicted_kl=None if mode == "error" else solution.objective,
        bound=None if mode == "error" else solution.bound,
        solver=solution.solver,
        notes=notes,
    )


def _default_pins(profile: Profile, mode: str) -> tuple[str, ...]:
    if mode != "lampq" or 8 not in profile.weight_bits:
        return ()
    present = {layer.kind for layer in profile.layers}
    return tuple(f"{kind}=8" for kind in _LAMPQ_PINS if kind in present)


def _require_choice(solution: Solution) -> None:
    if solution.choice is None:
        raise BudgetError(
            f"no plan meets all limits together (solver {solution.solver}: {solution.status.value}); relax one of them"
        )


def _smallest_budget(
    profile: Profile,
    cost: np.ndarray,
    max_kl: float,
    mode: str,
    pins: Sequence[str],
    ties: Sequence[str],
    average_bits: float | None,
    size_bytes: int | None,
) -> Budget:
    if mode == "error":
        raise BudgetError("a largest KL needs predictions in nats; profile the model with --data")
    if not max_kl > 0:
        raise BudgetError(f"largest KL {max_kl}: must be above 0 nats")
    if average_bits is not None or size_bytes is not None:
        raise BudgetError("a largest KL replaces the other budgets; give one or the other")
    widest = Budget(size_bytes=profile.rest_bytes + int(profile.payload_bytes.max(axis=1).sum()))
    curve = pareto(build_problem(profile, cost, widest, pins=pins, ties=ties))
    fitting = [size for size, damage in zip(curve.sizes, curve.damages, strict=True) if damage <= max_kl]
    if not fitting:
        raise BudgetError(
            f"largest KL {max_kl:g}: even the widest plan is predicted to lose {min(curve.damages):.3g} nats; "
            f"allow more or profile wider widths"
        )
    return Budget(size_bytes=profile.rest_bytes + int(min(fitting)))
