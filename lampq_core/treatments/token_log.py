"""Powers below the largest value of each token: a logarithmic grid for every row of probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from lampq.core.treatments import log_grid
from lampq.core.treatments.log_grid import LogGrid, check_probabilities
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import PROBABILITIES
from lampq.core.treatments.seen import Seen

# Powers of two from the largest value of a token to the smallest code.
_SPANS = (2.5, 3.5, 4.5, 5.5, 7.0, 9.0, 12.0)


def _candidates(seen: Seen, bits: int) -> Iterator[LogGrid]:
    check_probabilities(seen, "token_log")
    for span in _SPANS:
        for scale in (1.0, 0.85):
            for zero in (False, True):
                yield LogGrid(
                    tag="token_log",
                    bits=bits,
                    scale=scale,
                    step=span / ((1 << bits) - 1),
                    zero=zero,
                    dynamic=True,
                )


TOKEN_LOG = Quantizer(
    name="token_log",
    roles=frozenset((PROBABILITIES,)),
    candidates=_candidates,
    load=log_grid.load,
    source="log2 with the scales of token",
)
