"""Rounds of measuring around the current quantized plan: superposition made exact to first order where it matters.

Far below 3 bits the layers' errors no longer just add up. Differences measured with all other layers already
quantized include what those do, so the prediction around the plan is right where the search looks next. This is
the quantization-aware form of LampQ's update (Kim et al., AAAI 2026, arXiv:2511.10004), for any number of layers at
once, and a round counts only when the measured damage falls.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lampq.core.searching.bench import Bench, within_reach
from lampq.core.searching.superposition import allocate
from lampq.core.values.errors import BudgetError, RecordError
from lampq.core.values.history import Round
from lampq.core.values.progress import Progress, quiet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refined:
    """Where the rounds ended.

    Attributes:
        choice: Option per layer, int64, shape (L,).
        kl: Its measured damage on the calibration data, nats: the least of all plans measured.
        predicted: What the last interaction predicted for it before it was measured, nats; NaN for a plan given.
        rounds: What happened.
    """

    choice: np.ndarray
    kl: float
    predicted: float
    rounds: tuple[Round, ...]


def refine(
    bench: Bench,
    plans: Iterable[np.ndarray],
    *,
    rounds: int = 2,
    reach: int = 1,
    near: np.ndarray | None = None,
    tries: int = 8,
    seed: int = 0,
    progress: Progress = quiet,
) -> Refined:
    """Measure plans, then improve the best one round by round.

    A round measures the logits with one layer at a time moved to its neighbouring widths and all others as in the
    plan, searches with the interaction of these differences, and measures the best plans found. The rounds end
    when none of them has less measured damage than the plan before, so the result is never worse than any plan
    given: pass the uniform plan to be never worse than that.

    Args:
        bench: What plans are measured on; keeps every plan that is measured and every layer and option of a round.
        plans: Plans to begin with, each of shape (L,), within the limits.
        rounds: The most rounds; a round takes about as long as L / 2 * (options in reach) runs of the batch.
        reach: How many options up and down a round looks at, >= 1.
        near: Instead of `reach`: which options a round looks at from which, bool, shape (J, J).
        tries: Plans that a round measures, >= 1.
        seed: Of the search.
        progress: Told what is being done.

    Raises:
        RecordError: A plan breaks a limit, or logits are not finite (names the layer).
        BudgetError: No plan was given.
    """
    if reach < 1 or tries < 1 or rounds < 0:
        raise RecordError(f"rounds {rounds}, reach {reach}, tries {tries}: at least 0, 1 and 1")
    near = within_reach(len(bench.widths), reach) if near is None else near
    begun = time.perf_counter()
    distinct = {
        np.asarray(plan, dtype=np.int64).tobytes(): np.asarray(plan, dtype=np.int64) for plan in plans
    }
    if not distinct:
        raise BudgetError("no plan within the limits to begin with; relax a limit")
    choice, kl = bench.best(list(distinct.values()), progress)
    predicted = np.nan
    log = [
        Round(
            number=0,
            measured=kl,
            moved=0,
            tried=len(distinct),
            accepted=True,
            seconds=time.perf_counter() - begun,
        )
    ]
    for number in range(1, rounds + 1):
        begun = time.perf_counter()
        what = f"round {number}: measuring around the plan"
        interaction = bench.around(choice, near, progress=progress, what=what).interaction
        allocation = allocate(
            interaction, bench.problem, [choice], seed=seed, keep=tries + 1, bound_limit_s=0
        )
        new = [plan for plan in allocation.choices if plan.tobytes() not in bench.measured]
        if not new:
            break
        plan, measured = bench.best(new[:tries], progress)
        expected = float(interaction.predict(plan))
        accepted = measured < kl
        log.append(
            Round(
                number=number,
                before=kl,
                predicted=expected,
                measured=measured,
                moved=int((plan != choice).sum()),
                tried=len(new[:tries]),
                accepted=accepted,
                seconds=time.perf_counter() - begun,
            )
        )
        if not accepted:
            break
        choice, kl, predicted = plan, measured, expected
    return Refined(choice=choice, kl=kl, predicted=predicted, rounds=tuple(log))
