"""Search for the plan of least predicted damage, interactions included, within every limit.

Tabu search over moves of one layer, many replicas in lockstep so that NumPy does the work. A replica may leave the
limits at a price that rises while it is outside and falls while it is inside, so it passes between plans that
exchange bits among any number of layers, which feasible moves of one or two layers cannot reach. The gradient of
the quadratic form is kept up to date with two rows of Q per move; every move of every layer is then a look-up.
A replica that has long found nothing starts anew from a mixture of the best plans of two others. The best plans of
all finally descend over all moves of one and of two layers.

Sources of the method: Glover and Laguna (1997), Tabu Search, for aspiration and strategic oscillation; Moscato
(1989), On Evolution, Search, Optimization, Genetic Algorithms and Martial Arts, for mixing the plans of a
population that each search on their own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lampq.core.measuring.interaction import Interaction
from lampq.core.searching.landscape import Landscape
from lampq.core.values.problem import Problem

# The options that all replicas together look at in one step, about what stays in a core's cache, and the number of
# replicas it is divided among.
_STEP_CELLS = 1 << 14
_FEWEST, _MOST = 8, 64
# After this many steps on one side of a limit its price changes by these factors.
_OSCILLATION = 3
_CHEAPER, _DEARER = 0.7, 1.4
# Steps without a better plan after which a replica starts anew, and the share of layers that then change at random.
_BARREN = 50
_SHAKEN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        choices: Distinct plans within every limit, best first, int64, shape (N, L); N may be 0.
        objectives: Their predicted damage in nats, shape (N,).
        steps: Steps that every replica took.
        finished: The search stopped because it no longer improved, not for lack of time.
    """

    choices: np.ndarray
    objectives: np.ndarray
    steps: int
    finished: bool


def search(
    interaction: Interaction,
    problem: Problem,
    starts: Sequence[np.ndarray] = (),
    *,
    seed: int = 0,
    keep: int = 1,
    patience: int | None = None,
    time_limit_s: float | None = None,
) -> Found:
    """The best plans that can be found.

    The result depends on nothing but the arguments unless the time limit cuts the search short. No move of one
    layer and no joint move of two improves the first plan returned.

    Args:
        interaction: Damage of a plan; L layers, J options.
        problem: Limits and allowed options, without ties and pins.
        starts: Plans to start from, each of shape (L,), for example the additive optimum.
        seed: Of everything random.
        keep: The most plans to return.
        patience: Steps without improvement after which to stop; by default 100 and four per layer.
        time_limit_s: Seconds after which to stop in any case.

    Raises:
        RecordError: The problem has ties or pins, does not fit the interaction, or a start is not allowed.
        BudgetError: A layer has no option that is both allowed and measured.
    """
    deadline = np.inf if time_limit_s is None else time.perf_counter() + time_limit_s
    ground = Landscape(interaction, problem)
    rng = np.random.default_rng(seed)
    replicas = min(max(_STEP_CELLS // ground.cost.size, _FEWEST), _MOST)
    plans = [ground.checked(start) for start in starts]
    plans += [ground.random_start(rng) for _ in range(max(replicas - len(plans), _FEWEST // 2))]
    tabu = _Tabu(ground, np.array(plans), keep, rng)
    patience = 100 + 4 * len(ground.layers) if patience is None else patience
    while tabu.steps - tabu.improved < patience and time.perf_counter() < deadline:
        tabu.step()
    pool = [np.frombuffer(plan, dtype=np.int64) for plan in tabu.pool]
    pool += [ground.descend(choice) for choice in pool]
    choices = np.unique(np.array(pool, dtype=np.int64).reshape(len(pool), len(ground.layers)), axis=0)
    objectives = np.array([float(interaction.predict(choice)) for choice in choices])
    order = np.argsort(objectives, kind="stable")[:keep]
    return Found(
        choices=choices[order],
        objectives=objectives[order],
        steps=tabu.steps,
        finished=tabu.steps - tabu.improved >= patience,
    )


class _Tabu:
    """K replicas of a tabu search in lockstep.

    Attributes:
        pool: The best distinct plans so far, as bytes of int64, and their objective.
        steps: Steps taken.
        improved: Step that found the best plan so far.
    """

    def __init__(self, ground: Landscape, choices: np.ndarray, keep: int, rng: np.random.Generator) -> None:
        self.pool: dict[bytes, float] = {}
        self.steps = 0
        self.improved = 0
        self._ground = ground
        self._rng = rng
        self._keep = keep
        self._choice = choices
        self._replica = np.arange(len(choices))
        self._gradient = ground.gradients(choices)
        self._value = ground.interaction.predict(choices)
        self._usage = ground.use[:, ground.layers, choices].sum(axis=2)
        self._best = np.full(len(choices), np.inf)
        self._best_choice = choices.copy()
        self._best_step = np.zeros(len(choices), dtype=np.int64)
        layers = len(ground.layers)
        # A layer may not return to the option it has left for a number of steps in this range.
        self._tenure = max(4, layers // 12), max(12, layers // 4)
        self._free_from = np.zeros(self._gradient.shape, dtype=np.int64)
        # At first, a whole option of the largest layer is worth what a typical layer has to lose.
        spread = np.ptp(np.where(ground.allowed, ground.interaction.own + ground.linear, 0), axis=1)
        unit = np.maximum(ground.use.max(axis=(1, 2), initial=1), 1)
        self._price = np.repeat(float(np.median(spread)) / unit[:, None], len(choices), axis=1)
        self._run = np.zeros(self._price.shape, dtype=np.int64)
        self._forbidden = np.where(ground.allowed, 0.0, np.inf)
        self._record()

    def step(self) -> None:
        """In every replica, the best move that is not tabu, or that leads to a plan better than all it has seen."""
        ground, choice, replica = self._ground, self._choice, self._replica
        here = (replica[:, None], ground.layers, choice)
        change = self._gradient - self._gradient[here][:, :, None]
        change += ground.curvature[ground.layers, choice]
        change += self._forbidden
        fits = np.ones(change.shape, dtype=bool)
        priced = change.copy()
        for use, limit, usage, price in zip(ground.use, ground.limits, self._usage, self._price, strict=True):
            excess = (usage - limit)[:, None, None] - use[ground.layers, choice][:, :, None] + use
            fits &= excess <= 0
            priced += price[:, None, None] * np.maximum(excess, 0)
        improves = fits & (change < (self._best - self._value - ground.least_gain)[:, None, None])
        priced[(self._free_from > self.steps) & ~improves] = np.inf
        priced[here] = np.inf
        layer, option = np.divmod(priced.reshape(len(choice), -1).argmin(axis=1), change.shape[2])
        # Where every move is tabu or not allowed the replica waits.
        option = np.where(np.isfinite(priced[replica, layer, option]), option, choice[replica, layer])
        old = choice[replica, layer]
        self.steps += 1
        self._free_from[replica, layer, old] = self.steps + self._rng.integers(*self._tenure, len(choice))
        self._value += np.where(option == old, 0.0, change[replica, layer, option])
        offset = ground.offset[layer]
        rows = ground.matrix[offset + option] - ground.matrix[offset + old]
        self._gradient += 2 * rows.reshape(self._gradient.shape)
        self._usage += ground.use[:, layer, option] - ground.use[:, layer, old]
        choice[replica, layer] = option
        self._reprice()
        self._record()
        for barren in np.flatnonzero(self.steps - self._best_step > _BARREN):
            self._start_anew(int(barren))

    def _reprice(self) -> None:
        inside = self._usage <= self._ground.limits[:, None]
        self._run = np.where(inside, np.maximum(self._run, 0) + 1, np.minimum(self._run, 0) - 1)
        turned = np.abs(self._run) >= _OSCILLATION
        self._price *= np.where(turned, np.where(inside, _CHEAPER, _DEARER), 1.0)
        self._run[turned] = 0

    def _record(self) -> None:
        """Note the best plan of each replica, and the best of all."""
        inside = (self._usage <= self._ground.limits[:, None]).all(axis=0)
        gain = self._ground.least_gain
        better = inside & (self._value < self._best - gain)
        self._best[better] = self._value[better]
        self._best_choice[better] = self._choice[better]
        self._best_step[better] = self.steps
        lead = min(self.pool.values(), default=np.inf)
        worst = max(self.pool.values()) if len(self.pool) >= self._keep else np.inf
        for replica in np.flatnonzero(inside & (self._value < worst - gain)):
            self.pool.setdefault(self._choice[replica].tobytes(), float(self._value[replica]))
            if self._value[replica] < lead - gain:
                lead, self.improved = self._value[replica], self.steps
        while len(self.pool) > self._keep:
            del self.pool[max(self.pool, key=self.pool.__getitem__)]

    def _start_anew(self, replica: int) -> None:
        """Begin again from one of the best plans, mixed with that of any other replica and shaken a little."""
        ground, rng = self._ground, self._rng
        order = np.argsort(self._best, kind="stable")
        first = order[rng.integers(max(len(order) // 4, 1))]
        second = rng.integers(len(order))
        inherited = rng.random(len(ground.layers)) < rng.uniform(0.1, 0.5)
        child = np.where(inherited, self._best_choice[second], self._best_choice[first])
        for layer in np.flatnonzero(rng.random(len(child)) < _SHAKEN):
            child[layer] = rng.choice(np.flatnonzero(ground.allowed[layer]))
        self._choice[replica] = child
        self._gradient[replica] = ground.gradients(child[None])[0]
        self._value[replica] = ground.interaction.predict(child)
        self._usage[:, replica] = ground.use[:, ground.layers, child].sum(axis=1)
        self._free_from[replica] = 0
        self._best[replica] = np.inf
        self._best_step[replica] = self.steps
