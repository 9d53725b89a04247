"""Powers of a base that is searched: 2^(-q/37), products by a table of 37 entries and a shift."""

from __future__ import annotations

from collections.abc import Iterator

from lampq.core.treatments import log_grid
from lampq.core.treatments.log_grid import LogGrid
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import PROBABILITIES
from lampq.core.treatments.seen import Seen

_DENOMINATOR = 37
# Powers of two from the largest value to the smallest code.
_SPANS = (3.0, 4.0, 5.0, 6.5, 8.0, 10.0, 13.0, 17.0)


def _candidates(seen: Seen, bits: int) -> Iterator[LogGrid]:
    numerators = {max(1, round(_DENOMINATOR * span / ((1 << bits) - 1))) for span in _SPANS}
    steps = tuple(numerator / _DENOMINATOR for numerator in sorted(numerators))
    yield from log_grid.powers(seen, bits, "adaptive_log", steps)


ADAPTIVE_LOG = Quantizer(
    name="adaptive_log",
    roles=frozenset((PROBABILITIES,)),
    candidates=_candidates,
    load=log_grid.load,
    source="Wu et al. 2024 (AdaLog), arXiv:2407.12951",
)
