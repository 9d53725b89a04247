"""The plan that measures best, found with the model at hand: predicted, measured, improved, and told."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.allocating.equal_widths import equal_widths
from lampq.core.measuring.encoding import with_rounding
from lampq.core.measuring.held_out import Part, halves, held_out_damage
from lampq.core.measuring.model import Model, rounds_activations
from lampq.core.measuring.reference import Reference
from lampq.core.measuring.setting import profile_rule, profile_setting, profile_weight
from lampq.core.planning.room import settled
from lampq.core.planning.search import Search
from lampq.core.planning.solve import Solve
from lampq.core.searching.bench import Bench, Judge
from lampq.core.searching.lampq_update import Updated, is_consecutive, update
from lampq.core.searching.recentre import Refined, refine
from lampq.core.values.errors import BudgetError, PlanError, RecordError
from lampq.core.values.journal import NOWHERE, Journal
from lampq.core.values.option import neighbours as near_options
from lampq.core.values.plan import Neighbour, Plan
from lampq.core.values.problem import Problem
from lampq.core.values.profile import Profile
from lampq.core.values.progress import Progress, quiet
from lampq.core.values.request import Request
from lampq.core.values.score import AROUND, SWAPS
from lampq.core.values.solution import Solution

# Plans that look good enough to be measured.
_TRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trial:
    """A search whose plans are measured.

    Attributes:
        search: The search; its profile was made with the batch.
        model: The float model, its weights rounded as the profile says.
        reference: Calibration inputs, and what counts as the truth of them.
        parts: The halves of them that plans are measured on; none where codes are fitted to none.
        rounds_inputs: Whether layers' inputs are rounded while measuring.
        journal: Keeps what is measured.
        progress: Told what is being done.
    """

    search: Search
    model: Model
    reference: Reference
    parts: Sequence[Part]
    rounds_inputs: bool
    journal: Journal
    progress: Progress


def best_plans(
    model: Model,
    profile: Profile,
    reference: Reference,
    request: Request,
    solve: Solve,
    *,
    parts: Sequence[Part] | None = None,
    journal: Journal = NOWHERE,
    progress: Progress = quiet,
) -> tuple[Plan, Plan | None]:
    """The plan within a budget that measures best on the calibration data; never worse than the best uniform plan.

    The best plans are measured, and so is the best uniform plan of the budget. The one that measures least is then
    improved as its score has it: in rounds that measure around it, or by the published update.

    Args:
        model: The float model.
        profile: Its profile, made with the inputs of `reference`.
        reference: Calibration inputs, and what counts as the truth of them: what `model` makes of them, or something
            else where that is not the float one, having the factors of its attention rounded already, for example.
        request: Limits and how to look for the plan.
        solve: A solver.
        parts: The halves of the inputs, where they are known.
        journal: Keeps what is measured.
        progress: Told what is being done.

    Returns:
        The plan with its damage measured, inputs of layers rounded where the model can do that before it is written;
        and the best uniform plan, None where that is the same or there is none.

    Raises:
        BudgetError: No plan fits the budget, or the request sets no limit.
        RecordError: The profile was made with other data, or with the same in another order.
    """
    model = with_rounding(model, profile.rounding, profile.block, reference.inputs, journal)
    _check_same_data(profile, reference)
    wide = Search.of(profile, dataclasses.replace(request, budget=request.limits), solve)
    search, best = settled(wide, keep=_TRIES)
    trial = _Trial(
        search=search,
        model=model,
        reference=reference,
        parts=halves(model, reference) if parts is None else parts,
        rounds_inputs=rounds_activations(model) and search.profile.options[0].activation_bits is not None,
        journal=journal,
        progress=progress,
    )
    equal, notes = _equal_choices(trial)
    choices = [*best.choices, *equal]
    updated, update_notes = _updated(trial, choices[0])
    if updated is not None:
        choices = [updated.choice]
    refined = _refined(trial, choices)
    plan = _told(search, wide, best.solution, refined)
    plan = dataclasses.replace(
        plan,
        history=(*(() if updated is None else updated.swaps), *refined.rounds),
        notes=(*plan.notes, *notes, *update_notes, *_remarks(trial, refined.choice)),
    )
    return plan, _uniform(search, best.solution, refined.choice)


def _uniform(search: Search, first: Solution, choice: np.ndarray) -> Plan | None:
    """The best uniform plan, where it is another one than `choice`."""
    uniform = search.uniform
    if uniform is None or (uniform == choice).all():
        return None
    return search.plan(
        dataclasses.replace(first, choice=uniform, objective=search.predict(uniform), bound=-np.inf)
    )


def _equal_choices(trial: _Trial) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Good choices that have one width for weights and input of a layer, worth measuring beside those of pairs.

    Where errors are large predictions are not exact, and in so much smaller a space fewer plans look good by mistake.

    Returns:
        The choices, and a note where there are none though there might have been.
    """
    search = trial.search
    if not trial.rounds_inputs or not search.score.uses_interactions:
        return [], ()
    request = dataclasses.replace(search.request, mode=search.score, solver="auto", time_limit_s=None)
    try:
        narrow = equal_widths(search.profile)
        if narrow is search.profile:
            return [], ()
        best = Search.of(narrow, request, search.solve).best(keep=_TRIES // 2, bound_limit_s=0)
    except (BudgetError, PlanError, RecordError) as err:
        # Pins, rules or the budget leave no plan of this kind; there are the others.
        return [], (f"no plan of equal widths for weights and inputs was tried: {err}",)
    columns = np.array([search.profile.options.index(option) for option in narrow.options])
    return [columns[choice] for choice in best.choices], ()


def _updated(trial: _Trial, choice: np.ndarray) -> tuple[Updated | None, tuple[str, ...]]:
    """The published update of a choice where its score has it, and a note where the profile does not allow it."""
    search, profile, recipe = trial.search, trial.search.profile, trial.search.request.recipe
    if search.score.improved_by != SWAPS or search.request.most_rounds == 0:
        return None, ()
    widths = profile.weight_bits.tolist()
    if not is_consecutive(widths):
        left_out = (
            f"the update of mode {search.mode} was left out: it moves by single bits, and the profile has widths "
            f"{', '.join(map(str, widths))}"
        )
        return None, (left_out,) if recipe.most_swaps else ()
    updated = update(
        Bench(trial.model, profile.layers, widths, search.problem, trial.reference, journal=trial.journal),
        choice,
        table=recipe.table,
        importance=search.score.costs(profile, recipe)[:, 0] if recipe.weighted else None,
        most_swaps=recipe.most_swaps,
        rules=functools.partial(profile_rule, profile) if trial.rounds_inputs else None,
        progress=trial.progress,
    )
    return updated, ()


def _refined(trial: _Trial, choices: Sequence[np.ndarray]) -> Refined:
    """The choice that measures least, the best uniform one among them, improved in rounds where its score has them."""
    search, uniform, judge = trial.search, trial.search.uniform, _judge(trial)
    problem = search.problem
    inside = uniform is not None and _fits(problem, uniform)
    refined = refine(
        _bench(trial, problem, judge),
        [*choices, uniform] if uniform is not None and inside else choices,
        rounds=_rounds(trial),
        near=near_options(search.profile.options),
        seed=search.request.seed,
        progress=trial.progress,
    )
    if uniform is None or inside:
        return refined
    # What the search sets aside for options to share, a uniform plan may have for itself.
    room = dataclasses.replace(problem, limits=np.maximum(problem.limits, problem.usage(uniform)))
    alone = refine(_bench(trial, room, judge), [uniform], rounds=0)
    return refined if refined.kl <= alone.kl else dataclasses.replace(alone, rounds=refined.rounds)


def _fits(problem: Problem, choice: np.ndarray) -> bool:
    allowed = np.isfinite(problem.cost)[np.arange(len(choice)), choice]
    return bool(allowed.all() and (problem.usage(choice) <= problem.limits).all())


def _bench(trial: _Trial, problem: Problem, judge: Judge | None) -> Bench:
    """What plans within the limits of a problem are measured on."""
    profile = trial.search.profile
    return Bench(
        trial.model,
        profile.places,
        profile.weight_bits.tolist(),
        problem,
        trial.reference,
        quantizer=functools.partial(
            profile_setting if trial.rounds_inputs else profile_weight, trial.model, profile
        ),
        judge=judge,
        journal=trial.journal,
    )


def _rounds(trial: _Trial) -> int:
    """The most rounds that are made around a plan.

    Codes that are fitted to samples make the same samples a poor witness of how layers act together: judged by others,
    14 of 16 first rounds were refused, and of the two that were not one lost by it in the end
    (benchmarks/results/gradient_superposition.md). They are made when asked for.
    """
    search = trial.search
    if search.score.improved_by != AROUND:
        return 0
    fitted = bool(trial.parts) and not trial.rounds_inputs
    return 0 if fitted and search.request.rounds is None else search.request.most_rounds


def _judge(trial: _Trial) -> Judge | None:
    """Measures plans on samples that their codes were not fitted to; None where codes are fitted to none.

    On the samples that they were fitted to, plans look several times better than they are, and those best whose errors
    cancel there by chance.
    """
    profile, parts = trial.search.profile, trial.parts
    if not parts:
        return None

    def judge(choice: np.ndarray) -> float:
        def quantized(part: Part) -> Model:
            settings = {
                place.name: profile_setting(part.model, profile, index, option)
                for index, (place, option) in enumerate(zip(profile.places, choice.tolist(), strict=True))
            }
            if trial.rounds_inputs:
                return part.model.with_weights(settings)
            return part.model.with_weights({name: setting.weight for name, setting in settings.items()})

        return held_out_damage(parts, quantized)

    return judge


def _told(search: Search, wide: Search, first: Solution, refined: Refined) -> Plan:
    """The plan of what was measured, with what is expected of it and of its neighbours, which may take any options.

    A round predicts from where the plan is, which is nearer the truth; the bound is of the first prediction.
    """
    # Around a quantized plan the expansion can dip below zero, where it says nothing.
    recentred = math.isfinite(refined.predicted) and refined.predicted > 0
    predicted = search.predict(refined.choice)
    expected = refined.predicted if recentred else predicted
    solution = dataclasses.replace(
        first, choice=refined.choice, objective=expected, bound=-np.inf if recentred else first.bound
    )
    plan = dataclasses.replace(search.plan(solution), measured_kl=refined.kl)
    cheaper, dearer = wide.neighbours(refined.choice)
    return beside(plan, cheaper, dearer, scale=expected / predicted if predicted > 0 else 1.0)


def beside(plan: Plan, cheaper: Neighbour | None, dearer: Neighbour | None, *, scale: float) -> Plan:
    """The plan with its neighbours, their damage in proportion to what is expected of it.

    They are predicted from the first profile, the plan from a measurement around itself; unscaled the figures would
    not compare. Where the first profile takes a smaller plan for the better one, measuring has told otherwise, and it
    has nothing to say of neighbours.
    """

    def scaled(near: Neighbour | None) -> Neighbour | None:
        return None if near is None else dataclasses.replace(near, predicted_kl=near.predicted_kl * scale)

    cheaper, dearer = scaled(cheaper), scaled(dearer)
    if plan.predicted_kl is None or (cheaper is not None and cheaper.predicted_kl < plan.predicted_kl):
        cheaper = None
    if dearer is not None and dearer.total_bytes <= plan.total_bytes:
        dearer = None
    return dataclasses.replace(plan, cheaper=cheaper, dearer=dearer)


def _remarks(trial: _Trial, choice: np.ndarray) -> tuple[str, ...]:
    """What measuring has shown, and how far it may be trusted."""
    notes = []
    uniform = trial.search.uniform
    if uniform is not None and (choice == uniform).all():
        notes.append("the best uniform plan of the budget measured least on the calibration data")
    return tuple(notes)


def _check_same_data(profile: Profile, reference: Reference) -> None:
    """Predictions and measurements compare only on the same samples in the same order."""
    profiled, measured = profile.array("signature"), reference.readout.signature(reference.outputs)
    if profiled is None:
        profiled, measured = profile.array("logits"), np.asarray(reference.outputs)
    if profiled is None:
        return
    same = profiled.shape == measured.shape
    if not same or np.linalg.norm(profiled - measured) > 0.01 * np.linalg.norm(measured):
        raise RecordError(
            "the profile was made with other calibration data, or in another order; profile again"
        )
