"""Where the samples of an activation lie, told by what moves when two samples change places."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lampq.core.values.activation_rule import SiteAxes

# Other places among other samples may change the order of sums; more than this of the largest value is another sample.
_SAME = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Where the parts of an activation lie, and how long they are.

    Attributes:
        axes: As its quantizer has it.
        sides: As `arrays.GraphArray` has them.
    """

    axes: SiteAxes
    sides: tuple[int | None, ...]


def layout(
    seen: np.ndarray, swapped: np.ndarray, samples: int, *, sums: int, leading: int, free: bool, fixed: bool
) -> Layout:
    """The layout of an activation.

    Args:
        seen: It, of some samples.
        swapped: It, of the same samples in reverse order.
        samples: How many.
        sums: Axis that is summed over, counted from the end; 0 for that of a convolution, which goes by samples.
        leading: Axes that samples and rows lie along together.
        free: Whether the graph takes any number of samples.
        fixed: Whether all other lengths are always the same.
    """
    if sums == 0:
        return Layout(axes=SiteAxes(sums=0), sides=_sides(seen.shape, 0, samples, free=free, fixed=fixed))
    for axes in _axes(seen.shape, samples, sums, leading):
        parts, others = axes.split(seen, np), axes.split(swapped, np)
        if np.allclose(parts, others[::-1], rtol=0, atol=_SAME * float(np.abs(seen).max(initial=0.0))):
            outer = axes.rows // (axes.inner or axes.rows)
            lengths = [math.prod(seen.shape[: axis + 1]) for axis in range(leading)]
            place = next(axis for axis, length in enumerate(lengths) if length % (outer * samples) == 0)
            return Layout(axes=axes, sides=_sides(seen.shape, place, samples, free=free, fixed=fixed))
    return Layout(axes=SiteAxes(sums=sums), sides=(None,) * seen.ndim)


def _axes(shape: tuple[int, ...], samples: int, sums: int, leading: int) -> Iterator[SiteAxes]:
    """Ways in which samples and rows may lie along the leading axes, the likeliest first."""
    rows, rest = divmod(math.prod(shape[:leading]), samples)
    if rest or not rows or not leading:
        return
    divisors = [inner for inner in range(1, rows + 1) if rows % inner == 0]
    for inner in dict.fromkeys((rows, *divisors)):
        yield SiteAxes(sums=sums, rows=rows, inner=None if inner == rows else inner, leading=leading)


def _sides(
    shape: tuple[int, ...], place: int, samples: int, *, free: bool, fixed: bool
) -> tuple[int | None, ...]:
    """Lengths of the axes, of which one holds the samples."""
    known: list[int | None] = [length if fixed else None for length in shape]
    if free and fixed:
        known[place] = -(shape[place] // samples)
    return tuple(known)
