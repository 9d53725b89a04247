"""One table of allocation problems with known answers that every solver runs, and an oracle for the rest."""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from lampq.core.values.problem import Problem
from lampq.core.values.solution import Status

INF = np.inf
WIDTHS = np.arange(2, 9)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    name: str
    cost: Any
    resources: Any
    limits: Any
    status: Status = Status.OPTIMAL
    objective: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> Problem:
        return Problem.build(self.cost, self.resources, self.limits, **self.options)


def brute_force(problem: Problem) -> tuple[float, list[int] | None]:
    """Least damage over every choice, in Python integers and floats; (inf, None) where none fits."""
    best, best_choice = INF, None
    cost, use = (problem.cost * problem.scale).tolist(), problem.resources.tolist()
    limits = problem.limits.tolist()
    for choice in product(range(problem.cost.shape[1]), repeat=len(problem.cost)):
        if any(choice[layer] != option for layer, option in problem.pins.items()):
            continue
        if any(choice[layer] != choice[group[0]] for group in problem.ties for layer in group):
            continue
        if any(
            sum(row[i][j] for i, j in enumerate(choice)) > top for row, top in zip(use, limits, strict=True)
        ):
            continue
        damage = sum(cost[i][j] for i, j in enumerate(choice))
        if damage < best:
            best, best_choice = damage, list(choice)
    return best, best_choice


def vit(layers: int, seed: int, *, bits: float = 3.0) -> Case:
    """Layers of a vision transformer: four sizes, cost falling about fourfold per bit."""
    rng = np.random.default_rng(seed)
    size = np.array([3, 1, 4, 4])[np.arange(layers) % 4] * 384 * 384
    cost = rng.lognormal(0, 1.5, layers)[:, None] * 4.0**-WIDTHS * rng.lognormal(0, 0.1, (layers, 7))
    return Case(name="vit", cost=cost, resources=size[:, None] * WIDTHS, limits=int(size.sum() * bits))


def random_sizes(layers: int, seed: int, *, bits: float = 3.0) -> Case:
    """The same costs with sizes that have no common divisor."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1000, 3_000_000, layers)
    cost = rng.lognormal(0, 1.5, layers)[:, None] * 4.0**-WIDTHS * rng.lognormal(0, 0.1, (layers, 7))
    return Case(name="random", cost=cost, resources=size[:, None] * WIDTHS, limits=int(size.sum() * bits))


# ResNet-18 as measured by HAWQ-V3 (Yao et al., ICML 2021; tables of its repository Zhen-Dong/HAWQ, MIT
# licence): mean Hessian trace and squared weight error per layer, parameters, multiply-accumulates, T4
# latency in units of 10 ns, each for 4 and 8 bits. Down-sampling layers are tied to their main branch.
_TRACE = [
    0.06857826, 0.03162379, 0.03298575, 0.01205663, 0.02222431, 0.00596336, 0.06931772, 0.00807129,
    0.00372905, 0.00530698, 0.00209011, 0.00737569, 0.00210454, 0.00151197, 0.00158041, 0.00078146,
    0.00451841, 0.00098745, 0.00072944,
]  # fmt: skip
_ERROR_4 = [
    6.7430, 3.9691, 3.3281, 2.6796, 4.7277, 10.5966, 0.6827, 9.0942, 4.8857, 10.7599, 21.7546, 0.8603,
    14.5324, 10.9651, 18.7706, 36.4044, 3.1572, 29.6994, 17.4016,
]  # fmt: skip
_ERROR_8 = [
    0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023, 0.0287, 0.0148, 0.0333, 0.0682, 0.0027,
    0.0448, 0.0336, 0.0576, 0.1130, 0.0102, 0.0947, 0.0532,
]  # fmt: skip
_PARAMETERS = [
    36864, 36864, 36864, 36864, 73728, 147456, 8192, 147456, 147456, 294912, 589824, 32768, 589824,
    589824, 1179648, 2359296, 131072, 2359296, 2359296,
]  # fmt: skip
_MACS = [
    115605504, 115605504, 115605504, 115605504, 57802752, 115605504, 6422528, 115605504, 115605504,
    57802752, 115605504, 6422528, 115605504, 115605504, 57802752, 115605504, 6422528, 115605504,
    115605504,
]  # fmt: skip
_LATENCY_4 = [
    21094404, 21092674, 21104113, 21086851, 13642465, 19167506, 2532183, 19148203, 19142914, 11395316,
    20556011, 1917474, 20566918, 20566509, 13185102, 22287786, 1790088, 22304611, 22286099,
]  # fmt: skip
_LATENCY_8 = [
    36189111, 36211718, 31141909, 30454471, 19184896, 38948934, 3341690, 38904905, 38928590, 19134735,
    34307431, 2802354, 34313329, 34310756, 21117103, 37376585, 2896843, 37398187, 37405185,
]  # fmt: skip
# Budget, its place in quarters between all 4 bits and all 8, and the layers that the published plan leaves at
# 4.
HAWQ_V3 = (
    ("size", 3, {13, 18}),
    ("size", 2, {15, 17, 18}),
    ("size", 1, {14, 15, 16, 17, 18}),
    ("bops", 3, {8, 13, 15, 18}),
    ("bops", 2, {3, 8, 12, 13, 14, 15, 16, 17, 18}),
    ("bops", 1, {3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}),
    ("latency", 3, {8, 13, 15, 18}),
)


def resnet18(budget: str, quarters: int) -> Problem:
    """The allocation problem of HAWQ-V3 for ResNet-18: 4 or 8 bits per layer."""
    trace = np.array(_TRACE)
    use = {
        "size": np.array(_PARAMETERS)[:, None] * [4, 8],
        "bops": np.array(_MACS)[:, None] * [1, 4],
        "latency": np.stack([_LATENCY_4, _LATENCY_8], axis=1),
    }[budget]
    low, high = use.sum(axis=0).tolist()
    cost = np.stack([trace * _ERROR_4, trace * _ERROR_8], axis=1)
    return Problem.build(cost, use, low + (high - low) * quarters // 4, ties=[(4, 6), (9, 11), (14, 16)])


_SIZES = [[2, 4, 8], [4, 8, 16]]
_COSTS = [[0.9, 0.3, 0.0], [0.8, 0.5, 0.1]]

# The objective is worked out by hand: it is not what any of the solvers said.
CASES = (
    Case(name="one layer", cost=[[3.0, 2.0, 1.0]], resources=[[1, 2, 3]], limits=2, objective=2.0),
    Case(name="two layers", cost=_COSTS, resources=_SIZES, limits=16, objective=0.5),
    Case(name="two layers, one unit short", cost=_COSTS, resources=_SIZES, limits=15, objective=0.8),
    Case(name="everything fits", cost=_COSTS, resources=_SIZES, limits=24, objective=0.1),
    Case(name="no limit", cost=_COSTS, resources=_SIZES, limits=None, objective=0.1),
    Case(name="only the narrowest fits", cost=_COSTS, resources=_SIZES, limits=6, objective=1.7),
    Case(name="one option", cost=[[1.0], [2.0]], resources=[[3], [4]], limits=7, objective=3.0),
    Case(name="all costs zero", cost=np.zeros((3, 2)), resources=[[1, 2]] * 3, limits=4, objective=0.0),
    Case(
        name="zero-size layer",
        cost=[[5.0, 1.0], [4.0, 0.0]],
        resources=[[0, 0], [1, 2]],
        limits=1,
        objective=5.0,
    ),
    Case(name="all sizes zero", cost=[[5.0, 1.0]], resources=[[0, 0]], limits=0, objective=1.0),
    Case(
        name="not monotone",
        cost=[[1.0, 4.0, 0.5], [2.0, 2.5, 3.0]],
        resources=[[1, 2, 3]] * 2,
        limits=5,
        objective=2.5,
    ),
    Case(name="a wider option uses less", cost=[[4.0, 1.0]], resources=[[9, 2]], limits=5, objective=1.0),
    Case(
        name="same size, other cost",
        cost=[[3.0, 2.0, 2.5]] * 2,
        resources=[[2, 2, 2]] * 2,
        limits=4,
        objective=4.0,
    ),
    Case(
        name="forbidden options",
        cost=[[INF, 3.0, INF], [1.0, INF, 0.25]],
        resources=_SIZES,
        limits=20,
        objective=3.25,
    ),
    Case(
        name="forbidden option is the lightest",
        cost=[[INF, 3.0], [2.0, 1.0]],
        resources=[[0, 5], [1, 2]],
        limits=6,
        objective=5.0,
    ),
    Case(
        name="the greedy choice is wrong",
        # The steepest step (10 for 6) leaves no room for the two that together save 12 for 10.
        cost=[[10.0, 0.0], [6.0, 0.0], [6.0, 0.0]],
        resources=[[0, 6], [0, 5], [0, 5]],
        limits=10,
        objective=10.0,
    ),
    Case(
        name="tiny costs",
        cost=np.array(_COSTS) * 1e-12,
        resources=_SIZES,
        limits=16,
        objective=0.5e-12,
    ),
    Case(
        name="a disaster beside tiny costs",
        cost=[[1e6, 2e-9, 1e-9], [1e6, 3e-9, 1e-9]],
        resources=[[1, 2, 3]] * 2,
        limits=5,
        objective=3e-9,
    ),
    Case(
        name="tie",
        cost=[[3.0, 1.0], [2.0, 0.0], [4.0, 1.0]],
        resources=[[1, 2]] * 3,
        limits=5,
        objective=4.0,
        options={"ties": [(0, 2)]},
    ),
    Case(
        name="ties that overlap",
        cost=[[3.0, 1.0], [2.0, 0.0], [4.0, 1.0]],
        resources=[[1, 2]] * 3,
        limits=5,
        objective=9.0,
        options={"ties": [(0, 2), (1, 2)]},
    ),
    Case(
        name="pin that fits",
        cost=_COSTS,
        resources=_SIZES,
        limits=18,
        objective=1.0,
        options={"pins": {1: 2}},
    ),
    Case(
        name="everything pinned",
        cost=_COSTS,
        resources=_SIZES,
        limits=12,
        objective=0.8,
        options={"pins": {0: 1, 1: 1}},
    ),
    Case(
        name="a pin holds its tie",
        cost=[[3.0, 1.0], [2.0, 0.0], [4.0, 1.0]],
        resources=[[1, 2]] * 3,
        limits=6,
        objective=7.0,
        options={"ties": [(0, 2)], "pins": {2: 0}},
    ),
    Case(
        name="two budgets, one binds",
        cost=_COSTS,
        resources=[_SIZES, [[1, 1, 1], [1, 1, 1]]],
        limits=[16, 2],
        objective=0.5,
    ),
    Case(
        name="two budgets that pull apart",
        cost=[[3.0, 2.0, 0.0], [3.0, 1.0, 0.0]],
        resources=[[[0, 1, 3], [0, 2, 4]], [[0, 3, 1], [0, 1, 5]]],
        limits=[4, 4],
        objective=3.0,
    ),
    Case(
        name="two budgets that clash",
        cost=[[1.0, 1.0], [1.0, 1.0]],
        resources=[[[0, 9], [0, 9]], [[9, 0], [9, 0]]],
        limits=[8, 8],
        status=Status.INFEASIBLE,
    ),
    Case(
        name="feasible in fractions only",
        cost=[[1.0, 1.0]],
        resources=[[[0, 10]], [[10, 0]]],
        limits=[5, 5],
        status=Status.INFEASIBLE,
    ),
    Case(
        name="two budgets and a disaster beside tiny costs",
        cost=[[1e6, 2e-9, 1e-9], [1e6, 3e-9, 1e-9]],
        resources=[[[1, 2, 3], [1, 2, 3]], [[1, 5, 2], [1, 2, 5]]],
        limits=[5, 6],
        objective=4e-9,
    ),
    Case(
        name="three budgets",
        cost=[[4.0, 2.0, 0.0]] * 3,
        resources=[[[0, 1, 2]] * 3, [[0, 2, 3]] * 3, [[0, 1, 3]] * 3],
        limits=[4, 6, 5],
        objective=6.0,
    ),
)


def two_budgets(layers: int, seed: int) -> Problem:
    """Bits and bit-operations, both at a fifth of the way from least to most."""
    rng = np.random.default_rng(seed)
    case = random_sizes(layers, seed)
    positions = np.exp(rng.normal(0, 0.5, layers))
    use = np.stack([case.resources, (case.resources * positions[:, None]).astype(np.int64)])
    low, high = use.min(axis=2).sum(axis=1), use.max(axis=2).sum(axis=1)
    return Problem.build(case.cost, use, (low + 0.2 * (high - low)).astype(np.int64))
