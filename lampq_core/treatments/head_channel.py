"""A grid for each channel of each head, known beforehand: for factors whose channels the product does not sum over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lampq.core.treatments import grouped_grid
from lampq.core.treatments.grouped_grid import GroupedGrid
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import RIGHT, VALUES
from lampq.core.treatments.seen import Seen
from lampq.core.treatments.uniform import SHARES


def _candidates(seen: Seen, bits: int) -> Iterator[GroupedGrid]:
    if seen.axes.sums != -2 or seen.values.ndim != 3:
        return
    split = seen.axes.split(seen.values, np)
    low, high = split.min(axis=(0, 2)).clip(max=0).ravel(), split.max(axis=(0, 2)).clip(min=0).ravel()
    for share in SHARES[::2]:
        yield GroupedGrid(
            tag="head_channel", bits=bits, heads=seen.axes.rows, low=share * low, high=share * high
        )


HEAD_CHANNEL = Quantizer(
    name="head_channel",
    roles=frozenset((VALUES, RIGHT)),
    candidates=_candidates,
    load=grouped_grid.load,
    source="per channel as of weights: Krishnamoorthi 2018, arXiv:1806.08342",
)
