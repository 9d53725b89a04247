"""What pictures are drawn on: matplotlib without a display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lampq.core.values.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def canvas(width: float = 6.4) -> Figure:
    """An empty figure that notebooks show whatever their settings.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise MissingExtraError("matplotlib", "plot", err) from err

    class Picture(Figure):
        """A figure that knows its own PNG."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=110)
            return stream.getvalue()

    return Picture(figsize=(width, 4), layout="constrained")
