"""The options that the linear relaxation leaves open, grouped into stages of a search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Layers that are alike in their one open option are worth bundling from this many on.
_ALIKE = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenOptions:
    """Options that may improve on the best choice known, grouped into stages.

    Attributes:
        start: Options of stage k are start[k] : start[k + 1], shape (K + 1,). At most one of a stage is
            taken.
        cost: Cost relative to the base choice, shape (C,).
        weight: Weight relative to the base choice, shape (C,), int64.
        reduced: cost + rate * weight, >= 0, shape (C,); stages are sorted by their least.
        cell_start: Where in `cells` the cells of an option begin, shape (C,).
        cell_count: How many cells an option sets, shape (C,); more than one where alike layers are bundled.
        cells: Flat positions (layer * J + option).
    """

    start: np.ndarray
    cost: np.ndarray
    weight: np.ndarray
    reduced: np.ndarray
    cell_start: np.ndarray
    cell_count: np.ndarray
    cells: np.ndarray


def open_options(cost: np.ndarray, weight: np.ndarray, reduced: np.ndarray, gap: float) -> OpenOptions:
    """Collect the options with a reduced cost below `gap`.

    Args:
        cost: Relative to the base choice, shape (L, J).
        weight: The same, int64.
        reduced: cost + rate * weight; +inf at the base choice itself.
        gap: Best known cost minus bound.
    """
    cells = np.flatnonzero(reduced < gap)
    row = cells // cost.shape[1]
    cell_cost, cell_weight, cell_reduced = cost.ravel()[cells], weight.ravel()[cells], reduced.ravel()[cells]
    stage, count = row, np.ones(len(cells), dtype=np.int64)
    begin = np.arange(len(cells))
    bundles = _bundles(row, cell_cost, cell_weight)
    if bundles is not None:
        order, begin, count = bundles
        cells = cells[order]
        stage = row[order][begin]
        cell_cost = cell_cost[order][begin] * count
        cell_weight = cell_weight[order][begin] * count
        cell_reduced = cell_reduced[order][begin] * count
        fits = cell_reduced < gap
        begin, count, stage = begin[fits], count[fits], stage[fits]
        cell_cost, cell_weight, cell_reduced = cell_cost[fits], cell_weight[fits], cell_reduced[fits]
    names, stage = np.unique(stage, return_inverse=True)
    least = np.full(len(names), np.inf)
    np.minimum.at(least, stage, cell_reduced)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(least, kind="stable")] = np.arange(len(names))
    stage = rank[stage]
    order = np.argsort(stage, kind="stable")
    return OpenOptions(
        start=np.searchsorted(stage[order], np.arange(len(names) + 1)),
        cost=cell_cost[order],
        weight=cell_weight[order],
        reduced=cell_reduced[order],
        cell_start=begin[order],
        cell_count=count[order],
        cells=cells,
    )


def _bundles(
    row: np.ndarray, cost: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Bundle layers whose single open option is alike, so that n of them take log2(n) stages.

    Bundles of 1, 2, 4, ... and a rest layers make every number of them, as in a bounded knapsack.

    Returns:
        None where too few are alike, else the order of the cells and, per bundle, its begin and count.
    """
    single = np.ones(len(row), dtype=bool)
    single[1:] &= row[1:] != row[:-1]
    single[:-1] &= row[1:] != row[:-1]
    if single.sum() < _ALIKE:
        return None
    order = np.lexsort((cost, weight, ~single))
    alike = single[order]
    same = alike[1:] & alike[:-1] & (np.diff(cost[order]) == 0) & (np.diff(weight[order]) == 0)
    begins = np.flatnonzero(np.concatenate(([True], ~same)))
    counts = np.diff(np.append(begins, len(row)))
    if counts.max() < _ALIKE:
        return None
    begin, count = [], []
    for first, total in zip(begins.tolist(), counts.tolist(), strict=True):
        size = 1
        while total > 0:
            bundle = min(size, total)
            begin.append(first)
            count.append(bundle)
            first, total, size = first + bundle, total - bundle, 2 * size
    return order, np.array(begin), np.array(count)
