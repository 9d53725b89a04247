"""How far from the optimum a plan can be at most: a certified lower bound of the predicted damage."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from lampq.core.measuring.interaction import MOST_BYTES, Interaction
from lampq.core.searching.landscape import Landscape
from lampq.core.searching.semidefinite import Moves, bound_moves, peak_bytes
from lampq.core.values.problem import Problem

_MOST_ROUNDS = 6
# A round must close this share of the gap for another one to follow.
_WORTHWHILE = 0.05
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowerBound:
    """What is proven about all plans within the limits.

    Attributes:
        value: No plan has a smaller predicted damage, nats.
        open: Options that a plan better than the known one may still take, bool, shape (L, J).
        rounds: Relaxations solved.
        seconds: Wall time.
    """

    value: float
    open: np.ndarray
    rounds: int
    seconds: float


def lower_bound(
    interaction: Interaction,
    problem: Problem,
    choice: np.ndarray,
    *,
    tolerance: float = 1e-6,
    time_limit_s: float | None = None,
) -> LowerBound:
    """Bound the predicted damage of every plan within the limits from below.

    Each round solves the semidefinite relaxation of the options still open. Options that the bound shows to be
    in no plan better than `choice` are closed, and the next round has a tighter relaxation. Where its matrices do not
    fit in memory (`core.measuring.interaction.MOST_BYTES`), which at 7 widths is from 850 layers on, there is no bound.

    Args:
        interaction: Damage of a plan.
        problem: Limits and allowed options, without ties and pins.
        choice: The best plan known, within the limits, shape (L,).
        tolerance: Gap, as a fraction of the damage of `choice`, that counts as none.
        time_limit_s: Seconds after which to stop; the bound then is weaker but as valid. A round's first
            iteration is always made.

    Returns:
        A bound of at most the damage of `choice`; minus infinity where none was found.
    """
    start = time.perf_counter()
    deadline = np.inf if time_limit_s is None else start + time_limit_s
    ground = Landscape(interaction, problem)
    choice = ground.checked(choice)
    known = float(interaction.predict(choice))
    enough = tolerance * abs(known)
    still_open = ground.allowed.copy()
    value, rounds = -np.inf, 0
    while rounds < _MOST_ROUNDS:
        slots, real = _slots(still_open, choice)
        if not real.any():
            value = known
            break
        if interaction.gram.nbytes + peak_bytes(slots.size) > MOST_BYTES:
            break
        bound = bound_moves(_moves(ground, choice, slots, real), enough=enough, deadline=deadline)
        rounds += 1
        gained = known + bound.value - value
        value = max(value, known + bound.value)
        # A better plan would lie below `known`; one with such an option does not.
        useful = -bound.value - _ROUNDING * abs(known)
        layers, positions = np.nonzero(real & (bound.reduced > useful))
        still_open[layers, slots[layers, positions]] = False
        still_open[ground.layers, choice] &= bound.staying <= useful
        if known - value <= enough or time.perf_counter() > deadline:
            break
        if rounds > 1 and gained < _WORTHWHILE * (known - value):
            break
    return LowerBound(
        value=min(value, known), open=still_open, rounds=rounds, seconds=time.perf_counter() - start
    )


def _slots(still_open: np.ndarray, choice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The open options other than `choice` in as few columns as possible, shape (L, K), and which columns are used."""
    layers = np.arange(len(choice))
    others = still_open.copy()
    others[layers, choice] = False
    columns = max(int(others.sum(axis=1).max()), 1)
    slots = np.argsort(~others, axis=1, kind="stable")[:, :columns]
    return slots, np.take_along_axis(others, slots, axis=1)


def _moves(ground: Landscape, choice: np.ndarray, slots: np.ndarray, real: np.ndarray) -> Moves:
    """Cost and use of leaving `choice` for the options in `slots`; unused slots cost something and give nothing."""
    cells = (ground.offset[:, None] + slots).ravel()
    home = np.repeat(ground.offset + choice, slots.shape[1])
    matrix = ground.matrix
    layers, columns = slots.shape
    hessian = matrix[np.ix_(cells, cells)]
    # In place: each term as a matrix of its own would be as large.
    homes = ground.offset + choice
    stays = matrix[np.ix_(homes, cells)]
    hessian.reshape(layers, columns, -1)[...] -= stays[:, None, :]
    both = np.repeat(matrix[np.ix_(homes, homes)], columns, axis=0)
    hessian.reshape(-1, layers, columns)[...] -= (stays.T - both)[:, :, None]
    gradient = ground.gradients(choice[None])[0].ravel()
    slope = gradient[cells] - gradient[home]
    use = ground.use[:, ground.layers[:, None], slots] - ground.use[:, ground.layers, choice][:, :, None]
    unused = ~real.ravel()
    hessian[unused] = 0
    hessian[:, unused] = 0
    hessian[unused, unused] = max(float(np.abs(np.diag(hessian)).mean()), np.finfo(np.float64).tiny)
    slope[unused] = float(np.abs(slope).max())
    room = ground.limits - ground.use[:, ground.layers, choice].sum(axis=1)
    binding = np.maximum(use, 0).max(axis=2).sum(axis=1) > room
    return Moves(
        hessian=hessian,
        slope=slope.reshape(slots.shape),
        use=np.where(real, use, 0)[binding].astype(np.float64),
        room=room[binding].astype(np.float64),
    )
