"""All undominated sums of weights and costs of a multiple-choice knapsack, with the choices behind them."""

from __future__ import annotations

import numpy as np

from lampq.core.allocating.knapsack import undominated

# Cells of the table, one byte each: it is as fast as it is large.
_CELLS = 1 << 24
# States of the lists over all layers together, 5 bytes each.
_STATES = 1 << 21


def frontier(cost: np.ndarray, weight: np.ndarray, span: int) -> Table | Lists | None:
    """The undominated sums of at most `span`, or None where they are too many.

    Args:
        cost: Shape (L, J), >= 0, +inf where not allowed.
        weight: Shape (L, J), int64, >= 0, with an allowed option of weight 0 in each layer.
        span: The largest sum that counts.
    """
    if (span + 1) * max(1, len(cost)) <= _CELLS:
        return Table(cost, weight, span)
    return Lists.build(cost, weight, span)


class Table:
    """Least cost of every sum of weights, in an array indexed by the sum.

    Attributes:
        weights: Sums that no smaller one undercuts, shape (P,).
        costs: Their least costs, shape (P,).
    """

    def __init__(self, cost: np.ndarray, weight: np.ndarray, span: int) -> None:
        """Fill the table; arguments as in `frontier`."""
        self._weight = weight
        # Light layers first keep the table short for longest.
        self._order = np.argsort(weight.max(axis=1, initial=0), kind="stable").tolist()
        self._taken: list[np.ndarray] = []
        least = np.zeros(1)
        options = np.uint8 if cost.shape[1] <= 256 else np.uint32
        for layer in self._order:
            length = min(len(least) + int(weight[layer].max()), span + 1)
            total = np.full(length, np.inf)
            chosen = np.zeros(length, dtype=options)
            for option in undominated(weight[layer], cost[layer]).tolist():
                start = int(weight[layer, option])
                end = min(start + len(least), length)
                if start >= end or cost[layer, option] == np.inf:
                    continue
                trial = least[: end - start] + cost[layer, option]
                better = trial < total[start:end]
                np.copyto(total[start:end], trial, where=better)
                np.copyto(chosen[start:end], option, where=better)
            self._taken.append(chosen)
            least = total
        before = np.concatenate(([np.inf], np.minimum.accumulate(least)[:-1]))
        self.weights = np.flatnonzero(least < before)
        self.costs = least[self.weights]

    def choices(self) -> np.ndarray:
        """Options of every point, shape (P, L)."""
        dtype = self._taken[0].dtype if self._taken else np.uint8
        choices = np.empty((len(self.weights), len(self._order)), dtype=dtype)
        place = self.weights.copy()
        for layer, chosen in zip(reversed(self._order), reversed(self._taken), strict=True):
            option = chosen[place]
            choices[:, layer] = option
            place -= self._weight[layer, option]
        return choices


class Lists:
    """Undominated sums of weights with their costs, as sorted lists; attributes as in `Table`."""

    def __init__(self) -> None:
        self.weights, self.costs = np.zeros(1, dtype=np.int64), np.zeros(1)
        self._stages: list[tuple[int, np.ndarray, np.ndarray]] = []

    @classmethod
    def build(cls, cost: np.ndarray, weight: np.ndarray, span: int) -> Lists | None:
        """Merge layer by layer; None where the lists grow too long. Arguments as in `frontier`."""
        lists = cls()
        stored = 0
        dtype = np.uint8 if cost.shape[1] <= 256 else np.uint32
        for layer in np.argsort(weight.max(axis=1, initial=0), kind="stable").tolist():
            options = undominated(weight[layer], cost[layer])
            # Rows are sorted runs, which the stable sort of `undominated` merges.
            sums = (weight[layer, options][:, None] + lists.weights).ravel()
            costs = (cost[layer, options][:, None] + lists.costs).ravel()
            fit = np.flatnonzero((sums <= span) & (costs < np.inf))
            front = fit[undominated(sums[fit], costs[fit])]
            parents = (front % len(lists.weights)).astype(np.uint32)
            lists._stages.append((layer, options[front // len(lists.weights)].astype(dtype), parents))
            lists.weights, lists.costs = sums[front], costs[front]
            stored += len(front)
            if stored > _STATES:
                return None
        return lists

    def choices(self) -> np.ndarray:
        """Options of every point, shape (P, L)."""
        dtype = self._stages[0][1].dtype if self._stages else np.uint8
        choices = np.empty((len(self.weights), len(self._stages)), dtype=dtype)
        place = np.arange(len(self.weights))
        for layer, options, parents in reversed(self._stages):
            choices[:, layer] = options[place]
            place = parents[place]
        return choices
