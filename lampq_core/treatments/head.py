"""A grid for each head, known beforehand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lampq.core.treatments import grouped_grid
from lampq.core.treatments.grouped_grid import GroupedGrid
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import FACTORS
from lampq.core.treatments.seen import Seen
from lampq.core.treatments.uniform import SHARES


def _candidates(seen: Seen, bits: int) -> Iterator[GroupedGrid]:
    if seen.axes.rows == 1:
        return
    split = seen.axes.split(seen.values, np)
    axes = (0, *range(2, split.ndim))
    low, high = split.min(axis=axes).clip(max=0), split.max(axis=axes).clip(min=0)
    for share in SHARES[::2]:
        yield GroupedGrid(tag="head", bits=bits, heads=seen.axes.rows, low=share * low, high=share * high)


HEAD = Quantizer(
    name="head",
    roles=FACTORS,
    candidates=_candidates,
    load=grouped_grid.load,
    source="Shen et al. 2020 (Q-BERT), arXiv:1909.05840",
)
