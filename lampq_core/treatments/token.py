"""A grid for every token, from the values it has: what makes tokens that resemble each other round differently."""

from __future__ import annotations

from collections.abc import Iterator

from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import ROLES
from lampq.core.treatments.seen import Seen
from lampq.core.values.activation_grid import TokenGrid
from lampq.core.values.fitted import Fitted

_SHARES = (1.0, 0.92, 0.85, 0.78, 0.7, 0.6)


def _candidates(seen: Seen, bits: int) -> Iterator[TokenGrid]:
    for share in _SHARES:
        yield TokenGrid(bits=bits, share=share)


def _load(fitted: Fitted) -> TokenGrid:
    return TokenGrid(bits=fitted.bits, share=fitted.number("share", 1.0))


TOKEN = Quantizer(
    name="token",
    roles=ROLES,
    candidates=_candidates,
    load=_load,
    source="Yao et al. 2022 (ZeroQuant), arXiv:2206.01861",
)
