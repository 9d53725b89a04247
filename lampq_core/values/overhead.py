"""What a file holds beside codes and scales, and how it depends on the plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overhead:
    """Bytes of a quantized file beside codes and scales. L layers, J options, K things that layers share.

    A file has `rest_bytes`, what each layer has at its option, and once each what any of them needs of the shared.

    Attributes:
        rest_bytes: What every plan has.
        overhead_bytes: What an option of a layer adds for itself (nodes, names, shapes), int64, shape (L, J), or None.
        shared_bytes: Of each thing that several layers use, such as the table of a width, int64, shape (K,), or None.
        shares: Which of them an option of a layer needs, 0 or 1, int8, shape (L, J, K), or None.
    """

    rest_bytes: int
    overhead_bytes: np.ndarray | None = None
    shared_bytes: np.ndarray | None = None
    shares: np.ndarray | None = None

    def with_places(self, more: np.ndarray) -> Overhead:
        """The same with further bytes of every place, of which those behind the L layers share nothing.

        Args:
            more: Int64, shape (places, J).
        """
        behind = len(more) if self.overhead_bytes is None else len(more) - len(self.overhead_bytes)
        own = (
            more if self.overhead_bytes is None else more + np.pad(self.overhead_bytes, ((0, behind), (0, 0)))
        )
        shares = None if self.shares is None else np.pad(self.shares, ((0, behind), (0, 0), (0, 0)))
        return replace(self, overhead_bytes=own, shares=shares)

    def tables(self) -> dict[str, np.ndarray | None]:
        """The arrays under the names that they have in profiles."""
        return {
            "overhead_bytes": self.overhead_bytes,
            "shared_bytes": self.shared_bytes,
            "shares": self.shares,
        }
