"""Powers of two: a product with one is a shift."""

from __future__ import annotations

from collections.abc import Iterator

from lampq.core.treatments import log_grid
from lampq.core.treatments.log_grid import LogGrid
from lampq.core.treatments.quantizer import Quantizer
from lampq.core.treatments.roles import PROBABILITIES
from lampq.core.treatments.seen import Seen


def _candidates(seen: Seen, bits: int) -> Iterator[LogGrid]:
    yield from log_grid.powers(seen, bits, "log2", (1.0,))


LOG2 = Quantizer(
    name="log2",
    roles=frozenset((PROBABILITIES,)),
    candidates=_candidates,
    load=log_grid.load,
    source="Lin et al. 2022 (FQ-ViT), arXiv:2111.13824",
)
