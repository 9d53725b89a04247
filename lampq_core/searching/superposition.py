"""Allocation with interactions: a problem and an interaction in, the best plan found and a proof of its gap out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.allocating.certify import certify
from lampq.core.measuring.interaction import Interaction
from lampq.core.searching.landscape import Landscape
from lampq.core.searching.relaxation import lower_bound
from lampq.core.searching.search import search
from lampq.core.values.errors import RecordError
from lampq.core.values.problem import Problem
from lampq.core.values.solution import PROOF_TOLERANCE, Solution, Status, Stop

NAME = "superposition"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Allocation:
    """What allocation with interactions found.

    Attributes:
        solution: The best plan; objective and bound are predicted damage with interactions, nats.
        choices: The best distinct plans, best first, int64, shape (N, L); worth measuring where a model is at hand.
        objectives: Their predicted damage in nats, shape (N,).
    """

    solution: Solution
    choices: np.ndarray
    objectives: np.ndarray


def allocate(
    interaction: Interaction,
    problem: Problem,
    starts: Sequence[np.ndarray] = (),
    *,
    seed: int = 0,
    keep: int = 1,
    search_limit_s: float | None = None,
    bound_limit_s: float | None = 10.0,
) -> Allocation:
    """The plan of least predicted damage, interactions included, that meets every limit, tie and pin.

    Args:
        interaction: Damage of a plan; L layers, J options.
        problem: Limits, ties, pins and allowed options. Its costs only guide the start of the search.
        starts: Plans to start from, each of shape (L,), that keep the ties: the additive optima.
        seed: Of everything random.
        keep: The most plans to return.
        search_limit_s: Seconds for the search; None lets it end by itself.
        bound_limit_s: Seconds for the lower bound; 0 goes without one, None lets it end by itself.

    Raises:
        RecordError: The interaction does not fit the problem, or a start is not allowed.
        BudgetError: A layer has no option that is both allowed and measured.
        SolverError: An answer did not survive the check of its limits; a bug.
    """
    begun = time.perf_counter()
    if problem.cost.shape != interaction.linear.shape:
        raise RecordError(
            f"an interaction of (layers, options) {interaction.linear.shape} does not fit a problem of "
            f"{problem.cost.shape}"
        )
    reduction = problem.reduced()
    reduced = interaction.grouped(reduction.groups)
    first = np.unique(reduction.groups, return_index=True)[1]
    outcome = search(
        reduced,
        reduction.problem,
        [np.asarray(start)[first] for start in starts],
        seed=seed,
        keep=keep,
        time_limit_s=search_limit_s,
    )
    stop = Stop.FINISHED if outcome.finished else Stop.TIME_LIMIT
    if not len(outcome.choices):
        solution = Solution(
            status=Status.UNKNOWN,
            stop=stop,
            choice=None,
            objective=np.inf,
            bound=-np.inf,
            seconds=time.perf_counter() - begun,
            solver=NAME,
        )
        choices = outcome.choices[:, reduction.groups]
        return Allocation(solution=solution, choices=choices, objectives=outcome.objectives)
    bound = -np.inf
    if bound_limit_s is None or bound_limit_s > 0:
        bound = lower_bound(reduced, reduction.problem, outcome.choices[0], time_limit_s=bound_limit_s).value
    choices = outcome.choices[:, reduction.groups]
    for choice in choices:
        _check(problem, choice)
    objective = float(outcome.objectives[0])
    proven = objective - bound <= PROOF_TOLERANCE * abs(objective)
    solution = Solution(
        status=Status.OPTIMAL if proven else Status.FEASIBLE,
        stop=stop,
        choice=choices[0],
        objective=objective,
        bound=bound,
        seconds=time.perf_counter() - begun,
        solver=NAME,
    )
    return Allocation(solution=solution, choices=choices, objectives=outcome.objectives)


def _check(problem: Problem, choice: np.ndarray) -> None:
    """Options, ties, pins and limits, by the same check that every solver's answer passes."""
    certify(
        problem,
        Solution(
            status=Status.FEASIBLE,
            stop=Stop.FINISHED,
            choice=choice,
            objective=problem.objective(choice),
            bound=-np.inf,
            seconds=0.0,
            solver=NAME,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """What leaving a plan would change, one layer (with those tied to it) at a time. L layers, J options.

    Attributes:
        damage: Predicted change in nats, interactions with all other layers included, shape (L, J); 0 for the
            option the plan has, NaN where an option is not allowed or not measured.
        use: Change in each resource, int64, shape (R, L, J).
        fits: Whether the changed plan is within every limit, bool, shape (L, J).
        alone: Damage of the layer's option on its own, nats, shape (L,).
        shared: Half of its interactions with all other layers, nats, shape (L,): `alone` and `shared` of all
            layers and the damage of the interaction's centre add up to the damage of the plan.
    """

    damage: np.ndarray
    use: np.ndarray
    fits: np.ndarray
    alone: np.ndarray
    shared: np.ndarray


def explain(interaction: Interaction, problem: Problem, choice: np.ndarray) -> Explanation:
    """Why each layer has its option: what every other option would cost or save, all other layers as planned.

    Args:
        interaction: Damage of a plan.
        problem: Limits, ties and pins.
        choice: Option per layer, shape (L,).

    Raises:
        RecordError: The interaction does not fit the problem, or the choice breaks a tie or takes an option
            that is not allowed or not measured.
    """
    choice = np.asarray(choice, dtype=np.int64)
    reduction = problem.reduced()
    groups = reduction.groups
    first = np.unique(groups, return_index=True)[1]
    if choice.shape != groups.shape or (choice != choice[first][groups]).any():
        raise RecordError("the plan to explain breaks a tie, or is for another number of layers")
    ground = Landscape(interaction.grouped(groups), reduction.problem)
    leaders = ground.checked(choice[first])
    gradient = ground.gradients(leaders[None])[0]
    here = (ground.layers, leaders)
    damage = gradient - gradient[here][:, None] + ground.curvature[here]
    damage[~ground.allowed] = np.nan
    use = ground.use - ground.use[:, ground.layers, leaders][:, :, None]
    room = ground.limits - ground.use[:, ground.layers, leaders].sum(axis=1)
    fits = ground.allowed & (use <= room[:, None, None]).all(axis=0)
    layers = np.arange(len(choice))
    own = interaction.own[layers, choice]
    linear = interaction.linear[layers, choice]
    rows = interaction.matrix[layers * interaction.linear.shape[1] + choice]
    total = rows[:, layers * interaction.linear.shape[1] + choice].sum(axis=1)
    return Explanation(
        damage=damage[groups], use=use[:, groups], fits=fits[groups], alone=own + linear, shared=total - own
    )
