"""One grid for the whole tensor, known beforehand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lampq.core.quantizing.activation_range import histogram_of
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import ROLES
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_grid import ActivationGrid
from lampq.core.values.fitted import Fitted

SHARES = tuple(np.linspace(1.0, 0.3, 15).tolist())
"""Shares of a range that are tried: the rest is clipped."""


def _candidates(seen: Seen, bits: int) -> Iterator[ActivationGrid]:
    yield histogram_of(seen.values).grid(bits)
    for share in SHARES:
        yield ActivationGrid.from_range(share * seen.low, share * seen.high, bits)


def _load(fitted: Fitted) -> ActivationGrid:
    return ActivationGrid(
        scale=float(np.float32(fitted.number("scale"))),
        zero_point=int(fitted.number("zero_point")),
        bits=fitted.bits,
    )


UNIFORM = Quantizer(
    name="uniform",
    roles=ROLES,
    candidates=_candidates,
    load=_load,
    source="Jacob et al. 2018, arXiv:1712.05877",
)
